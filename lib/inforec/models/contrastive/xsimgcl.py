"""XSimGCL: one noisy pass for ranking and contrast, between its last mean and one of its layers.

Shape letters: V nodes (users first), D embedding size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from inforec.checks import require_number
from inforec.models.contrastive.simgcl import SimGCL
from inforec.types import Batch, Output


class XSimGCL(SimGCL):
    """Yu et al. (2024), "XSimGCL: Towards Extremely Simple Graph Contrastive Learning".

        L = L_rank(E') + weight * (InfoNCE of users + InfoNCE of items between E' and E'^(l*))

    with E' and E'^(l) the noisy mean and layers of :class:`SimGCL` (section 3.2), from a single
    pass. Scores outside training come from the pass without noise.

    Differences from the paper and its code: as in :class:`SimGCL`.
    """

    builds_on = "simgcl"
    adds = "one noisy pass for both ranking and contrast"

    @dataclass(frozen=True)
    class Config(SimGCL.Config):
        """contrast_layer: l*, the layer (1 .. L) that the mean is compared with."""

        weight: float = 0.2
        eps: float = 0.2
        contrast_layer: int = 1

        def __post_init__(self):
            super().__post_init__()
            require_number(
                "contrast_layer",
                self.contrast_layer,
                at_least=1,
                at_most=self.layers,
                integer=True,
            )

    def forward(self, batch: Batch) -> Output:
        if not self.training:
            return super().forward(batch)
        layers = self.layers_from_1(self.config.eps)
        mean_VD = torch.stack(layers).mean(0)
        output = self.answer(batch, *self.select(mean_VD, batch))
        layer_VD = layers[self.config.contrast_layer - 1]
        output.aux["contrast"] = self.contrast(batch, mean_VD, layer_VD)
        return output
