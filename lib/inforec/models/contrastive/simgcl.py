"""SimGCL: no graph is cut; the two views differ by a little noise in every layer.

Shape letters: V nodes (users first), D embedding size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from inforec.checks import require_number
from inforec.graph import propagate
from inforec.layers import unit
from inforec.models.contrastive.views import TwoViews
from inforec.types import Batch, Output


class SimGCL(TwoViews):
    """Yu et al. (2022), "Are Graph Augmentations Necessary? Simple Graph Contrastive Learning".

        E'^(l) = A~ E'^(l-1) + noise^(l),    E' = mean of E'^(1) .. E'^(L)    (equations 6 and 8)
        noise = eps * sign(E) * r / ||r||,  r uniform on (0, 1)^D for each node    (equation 7)
        L = L_rank + weight * (InfoNCE of users + InfoNCE of items)

    between two noisy views; each noise vector has length eps and stays in its node's orthant.
    Ranking uses the view without noise, also over layers 1 .. L: layer 0 is left out.

    Differences from the paper and its code: initial embeddings are normal with standard deviation
    0.1 (Xavier in the code), to which ``eps`` is relative; weight decay acts on all of E^(0).
    """

    builds_on = "sgl"
    adds = "noise in each layer instead of cut graphs"

    @dataclass(frozen=True)
    class Config(TwoViews.Config):
        """eps: length of the noise vectors. Of the inherited options, ``layers`` is at least 1."""

        weight: float = 0.5
        eps: float = 0.1

        def __post_init__(self):
            super().__post_init__()
            require_number("layers", self.layers, at_least=1, integer=True)
            require_number("eps", self.eps, at_least=0)

    def propagated(self) -> Tensor:
        """(V, D): the mean over layers 1 .. L, without noise."""
        return torch.stack(self.layers_from_1(eps=0.0)).mean(0)

    def layers_from_1(self, eps: float) -> list[Tensor]:
        """L tensors (V, D): layers 1 .. L, each with noise of length ``eps`` that travels on."""
        layer_VD, layers = self.node_VD, []
        for _ in range(self.config.layers):
            layer_VD = propagate(self.adjacency_VV, layer_VD)
            if eps:
                with torch.no_grad():  # the noise is a constant, and so is the sign
                    noise_VD = eps * layer_VD.sign() * unit(torch.rand_like(layer_VD))
                layer_VD = layer_VD + noise_VD
            layers.append(layer_VD)
        return layers

    def forward(self, batch: Batch) -> Output:
        output = super().forward(batch)
        if self.training:
            views = [torch.stack(self.layers_from_1(self.config.eps)).mean(0) for _ in range(2)]
            output.aux["contrast"] = self.contrast(batch, *views)
        return output
