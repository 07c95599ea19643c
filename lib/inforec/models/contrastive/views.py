"""What the graph-contrastive models share: two views of the nodes, told apart by InfoNCE.

Shape letters: V nodes (users first), D embedding size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from inforec.checks import require_number
from inforec.layers import take_rows
from inforec.losses import info_nce
from inforec.models.graph.lightgcn import LightGCN
from inforec.types import Batch


class TwoViews(LightGCN):
    """LightGCN with a contrastive term; a subclass makes the views."""

    row_wise = False  # the contrast compares the nodes of a batch

    @dataclass(frozen=True)
    class Config(LightGCN.Config):
        """What the contrast needs to know, besides LightGCN's options.

        Args:
            weight: of the contrastive term in the loss.
            temperature: divides the cosines in the contrastive term.
        """

        weight: float = 0.1
        temperature: float = 0.2

        def __post_init__(self):
            super().__post_init__()
            require_number("weight", self.weight, at_least=0)
            require_number("temperature", self.temperature, above=0)

    def contrast(self, batch: Batch, first_VD: Tensor, second_VD: Tensor) -> Tensor:
        """InfoNCE of the batch's distinct users plus that of its distinct positives, weighted.

        Each node's positive is itself in the other view, its negatives are the batch's other users
        (or items) there; mean over users and mean over items, nats.
        """
        total = 0.0
        for node_X in (torch.unique(batch.user), self.num_users + batch.positives()):
            first_XD, second_XD = take_rows(first_VD, node_X), take_rows(second_VD, node_X)
            total = total + info_nce(first_XD, second_XD, self.config.temperature)
        return self.config.weight * total
