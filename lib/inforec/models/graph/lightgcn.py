"""LightGCN: embeddings smoothed along the user-item graph.

Shape letters: B rows, U users, N items, V = U + N nodes, D embedding size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from inforec.checks import require_number
from inforec.graph import normalised_adjacency, propagate
from inforec.layers import take_rows, unit
from inforec.models.base import DotProduct
from inforec.types import Interactions, Query


class LightGCN(DotProduct):
    """He et al. (2020), "LightGCN: Simplifying and Powering Graph Convolution Network".

        E^(l+1) = D^(-1/2) A D^(-1/2) E^(l),    E = mean of E^(0) .. E^(L),    s_ui = e_u . e_i

    (section 3.1, with equal weights for the layers). Only E^(0) is learned.

    Differences from the paper and its code:
    1. weight decay acts on all of E^(0) at every step, not on the rows of the batch;
    2. the loss is chosen outside: bpr as in the paper, or a softmax.
    """

    builds_on = "mf"
    adds = "the vectors are averaged along the graph"
    row_wise = True

    @dataclass(frozen=True)
    class Config:
        """What LightGCN needs to know.

        Args:
            dim: embedding size D.
            layers: propagation steps L (0 is matrix factorisation).
            cosine: score by the cosine instead of the dot product.
        """

        dim: int = 64
        layers: int = 3
        cosine: bool = False

        def __post_init__(self):
            require_number("dim", self.dim, at_least=1, integer=True)
            require_number("layers", self.layers, at_least=0, integer=True)
            if not isinstance(self.cosine, bool):
                raise ValueError(f"cosine={self.cosine!r}: expected True or False")

    def __init__(self, train: Interactions, config: Config | None = None):
        super().__init__(train, config)
        self.node_VD = nn.Parameter(torch.empty(self.num_users + self.num_items, self.config.dim))
        nn.init.normal_(self.node_VD, std=0.1)
        self.register_buffer("adjacency_VV", normalised_adjacency(train), persistent=False)

    def propagated(self) -> Tensor:
        """(V, D): the mean over layers 0 .. L, users first."""
        return self.mean_of_layers([self.adjacency_VV] * self.config.layers)

    def mean_of_layers(self, adjacencies: Sequence[Tensor]) -> Tensor:
        """(V, D): the mean of E^(0) and of each step along one (V, V) adjacency a layer."""
        layer_VD, total_VD = self.node_VD, self.node_VD
        for adjacency_VV in adjacencies:
            layer_VD = propagate(adjacency_VV, layer_VD)
            total_VD = total_VD + layer_VD
        return total_VD / (len(adjacencies) + 1)

    def embed(self, query: Query) -> tuple[Tensor, Tensor]:
        return self.select(self.propagated(), query)

    def select(self, node_VD: Tensor, query: Query) -> tuple[Tensor, Tensor]:
        """((B, D), (N, D)): the query's users and all items among the nodes, ready to score."""
        user_UD, item_ND = node_VD.split([self.num_users, self.num_items])
        user_BD = take_rows(user_UD, query.user)
        return (unit(user_BD), unit(item_ND)) if self.config.cosine else (user_BD, item_ND)
