"""CGI: views whose dropped nodes and edges are learned, kept apart by an information bottleneck.

Shape letters: V nodes (users first), U users, N items, E interactions, D embedding size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inforec import losses
from inforec.checks import require_number
from inforec.distribution import ItemDistribution
from inforec.graph import WeightedGraph, edge_norm, propagate, random_walk, walk_mean
from inforec.models.contrastive.views import TwoViews
from inforec.types import Batch, Interactions, Output


class CGI(TwoViews):
    """Wei et al. (2022), "Contrastive Graph Structure Learning via Information Bottleneck".

    From layer l of LightGCN, E^(l), one MLP a layer decides on every edge and one on every node:

        gate = sigmoid((MLP(E^(l)) + log x - log(1 - x)) / gate_temperature),  x uniform on (0, 1)

    (the concrete relaxation of a Bernoulli variable; without the noise outside training). The edge
    view multiplies each edge of step l by its gate. The node view replaces node v before step l by
    gate_v e_v + (1 - gate_v) (mean of e over a random walk from v). Users and items are served by
    the three views side by side: the score is the sum of the views' scores. The loss adds

        rank_weight * sum over both views of the ranking loss of that view alone
        - weight * sum over both views of (InfoNCE of users + InfoNCE of items, view to whole graph)

    so a view must rank well and share little with the whole graph: the bottleneck.

    Differences from the authors' code (github.com/weicy15/CGI), by which we went where the abstract
    is silent:

    1. the loss chosen outside trains the score that is served, the sum of the three views, where
       the code has the ranking loss of the whole graph's view;
    2. the views' own ranking loss is bpr for batches of pairs, as in the code, and a softmax over
       the catalogue at ``rank_temperature`` for batches of users;
    3. one gate for both directions of an edge, which the code draws apart;
    4. the walks come from a fixed seed, so they belong to the graph and not to the run;
    5. scores outside training use the gates without noise; in the code they stay random;
    6. no penalty on the mean gate, which one version of the code has.
    """

    builds_on = "sgl"
    adds = "what a view drops is learned, under a bottleneck"

    @dataclass(frozen=True)
    class Config(TwoViews.Config):
        """What CGI needs to know, besides the options of the contrast.

        Args:
            weight: of the bottleneck.
            gate_temperature: of the concrete relaxation; near 0 the gates are 0 or 1.
            walk: steps of the random walks.
            rank_weight: of the views' own ranking losses.
            rank_temperature: divides the views' scores where that loss is a softmax.
        """

        weight: float = 0.02
        gate_temperature: float = 0.2
        walk: int = 10
        rank_weight: float = 1.0
        rank_temperature: float = 1.0

        def __post_init__(self):
            super().__post_init__()
            require_number("layers", self.layers, at_least=1, integer=True)
            require_number("gate_temperature", self.gate_temperature, above=0)
            require_number("walk", self.walk, at_least=0, integer=True)
            require_number("rank_weight", self.rank_weight, at_least=0)
            require_number("rank_temperature", self.rank_temperature, above=0)

    def __init__(self, train: Interactions, config: Config | None = None):
        super().__init__(train, config)
        dim, layers = self.config.dim, range(self.config.layers)
        self.edge_gates = nn.ModuleList(_EdgeLogit(dim) for _ in layers)
        self.node_gates = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, 1)) for _ in layers
        )
        self.graph = WeightedGraph(train)
        self.register_buffer("norm_E", edge_norm(train), persistent=False)
        # On the CPU, so that the walks are the same whatever the device.
        walk_VW = random_walk(
            self.adjacency_VV.cpu(), self.config.walk, torch.Generator().manual_seed(0)
        )
        walk_VV, walk_transposed_VV = walk_mean(walk_VW.to(train.user.device))
        self.register_buffer("walk_VV", walk_VV, persistent=False)
        self.register_buffer("walk_transposed_VV", walk_transposed_VV, persistent=False)

    def views(self) -> tuple[Tensor, Tensor, Tensor]:
        """Three (V, D): the mean over layers 0 .. L of the whole graph, edge view and node view."""
        whole_VD = edge_VD = node_VD = self.node_VD
        totals = [self.node_VD] * 3
        for edge_logit, node_logit in zip(self.edge_gates, self.node_gates, strict=True):
            whole_VD = propagate(self.adjacency_VV, whole_VD)
            gate_E = self.gate(edge_logit(whole_VD, self.graph.user_E, self.graph.item_E))
            edge_VD = self.graph(gate_E * self.norm_E, edge_VD)
            gate_V1 = self.gate(node_logit(whole_VD))
            pooled_VD = propagate(self.walk_VV, node_VD, self.walk_transposed_VV)
            mixed_VD = gate_V1 * node_VD + (1 - gate_V1) * pooled_VD
            node_VD = propagate(self.adjacency_VV, mixed_VD)
            layers = (whole_VD, edge_VD, node_VD)
            totals = [total + layer for total, layer in zip(totals, layers, strict=True)]
        whole_VD, edge_VD, node_VD = (total / (self.config.layers + 1) for total in totals)
        return whole_VD, edge_VD, node_VD

    def gate(self, logit: Tensor) -> Tensor:
        """Gates in (0, 1) of the same shape: concrete draws in training, the median outside."""
        if self.training:
            # Drawn in the parameters' precision: in a half's, a draw may round to 1.
            logit = logit + torch.rand_like(logit, dtype=self.node_VD.dtype).logit(eps=1e-4)
        return (logit / self.config.gate_temperature).sigmoid()

    def propagated(self) -> Tensor:
        """(V, 3 D): the three views side by side."""
        return torch.cat(self.views(), dim=1)

    def forward(self, batch: Batch) -> Output:
        if not self.training:
            return super().forward(batch)
        whole_VD, *others = self.views()
        output = self.answer(batch, *self.select(torch.cat([whole_VD, *others], dim=1), batch))
        output.aux["views"] = self.config.rank_weight * sum(self.rank(batch, v) for v in others)
        output.aux["contrast"] = -sum(self.contrast(batch, v, whole_VD) for v in others)
        return output

    def rank(self, batch: Batch, view_VD: Tensor) -> Tensor:
        """The ranking loss of one view by itself, nats."""
        query_BD, item_ND = self.select(view_VD, batch)
        if batch.items is None:
            law = ItemDistribution.from_embeddings(
                query_BD, item_ND, temperature=self.config.rank_temperature
            )
            return losses.softmax(law, batch.target)
        logits_BK = self.answer(batch, query_BD, item_ND).logits
        return losses.bpr(logits_BK[:, 0], logits_BK[:, 1:])


class _EdgeLogit(nn.Module):
    """An MLP on the two ends of each edge; its first layer acts on nodes before they are paired."""

    def __init__(self, dim: int):
        super().__init__()
        self.user, self.item = nn.Linear(dim, dim), nn.Linear(dim, dim, bias=False)
        self.out = nn.Linear(dim, 1)

    def forward(self, node_VD: Tensor, user_E: Tensor, item_E: Tensor) -> Tensor:
        """(E,) logits of the edges from node ``user_E`` to node ``item_E``."""
        hidden_ED = F.embedding(user_E, self.user(node_VD)) + F.embedding(
            item_E, self.item(node_VD)
        )
        return self.out(hidden_ED.relu())[:, 0]
