"""SGL: two randomly cut graphs, and nodes that must be recognised across them.

Shape letters: E interactions, V nodes (users first), D embedding size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from inforec.checks import require_choice, require_number
from inforec.graph import WeightedGraph
from inforec.models.contrastive.views import TwoViews
from inforec.types import Batch, Interactions, Output

AUGMENTATIONS = ("node_drop", "edge_drop", "random_walk")


class SGL(TwoViews):
    """Wu et al. (2021), "Self-supervised Graph Learning for Recommendation".

        L = L_rank + weight * (InfoNCE of users + InfoNCE of items)    (equations 10 and 11)

    between the LightGCN embeddings of two sub-graphs, each renormalised by its own degrees. They
    are drawn anew every epoch (equations 5 to 8): "node_drop" drops each node with all its edges
    with probability ``ratio``, "edge_drop" each edge, and "random_walk" draws a new edge drop for
    every layer. Ranking uses the whole graph.

    Differences from the paper and its code:

    1. the negatives are the batch's other users (or items), not all of them;
    2. the contrast is a mean over the distinct users, and one over the distinct items, of the
       batch, where the paper sums; ``weight`` is on that scale;
    3. each node or edge is dropped independently, as the paper writes, where the code drops an
       exact share;
    4. weight decay acts on all of E^(0), as in :class:`LightGCN`.
    """

    builds_on = "lightgcn"
    adds = "two cut graphs, and InfoNCE between them"

    @dataclass(frozen=True)
    class Config(TwoViews.Config):
        """What SGL needs to know, besides the options of the contrast.

        Args:
            augmentation: "node_drop", "edge_drop" or "random_walk".
            ratio: the share of nodes or edges that a view drops, in expectation.
        """

        augmentation: str = "edge_drop"
        ratio: float = 0.1

        def __post_init__(self):
            super().__post_init__()
            require_choice("augmentation", self.augmentation, AUGMENTATIONS)
            require_number("ratio", self.ratio, at_least=0, at_most=1)

    def __init__(self, train: Interactions, config: Config | None = None):
        super().__init__(train, config)
        self.graph = WeightedGraph(train)
        self.views: list[list[Tensor]] = []  # for each view, the adjacency of each layer

    def on_epoch_start(self, epoch: int) -> None:
        # The training loop has seeded torch by the epoch: a resumed run draws the same graphs.
        layers = self.config.layers
        if self.config.augmentation == "random_walk":
            self.views = [[self.cut() for _ in range(layers)] for _ in range(2)]
        else:
            self.views = [[self.cut()] * layers for _ in range(2)]

    def cut(self) -> Tensor:
        """The normalised (V, V) adjacency of a new sub-graph."""
        user_E, item_E, ratio = self.graph.user_E, self.graph.item_E, self.config.ratio
        if self.config.augmentation == "node_drop":
            keep_V = torch.rand(self.num_users + self.num_items, device=user_E.device) >= ratio
            keep_E = keep_V[user_E] & keep_V[item_E]
        else:
            keep_E = torch.rand(len(user_E), device=user_E.device) >= ratio
        return self.graph.kept(keep_E).to(self.node_VD.dtype)

    def forward(self, batch: Batch) -> Output:
        output = super().forward(batch)
        if self.training:
            assert self.views, "on_epoch_start draws the views"
            first_VD, second_VD = map(self.mean_of_layers, self.views)
            output.aux["contrast"] = self.contrast(batch, first_VD, second_VD)
        return output
