"""NGCF: messages along the user-item graph that know both of their ends.

Shape letters: U users, N items, V = U + N nodes (users first), D embedding size, L layers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inforec.checks import require_choice, require_number
from inforec.graph import propagate
from inforec.layers import unit
from inforec.models.graph.lightgcn import LightGCN
from inforec.types import Interactions

SLOPE = 0.2  # of LeakyReLU below zero, as in the authors' code


class NGCF(LightGCN):
    """Wang et al. (2019), "Neural Graph Collaborative Filtering", equations 3 to 10, SIGIR::

        message of i to u:  (W1 e_i + W2 (e_i * e_u)) / sqrt(d_u d_i),   * element by element
        message to itself:  W1 e_u
        e_u^(l+1) = LeakyReLU(sum of the messages to u),                 W1, W2 of layer l, (D, D)
        e_u = [e_u^(0), e_u^(1), .., e_u^(L)] side by side,    s_ui = e_u . e_i

    and the same for items. With X = D^(-1/2) A D^(-1/2) E, one sparse product as in LightGCN, a
    layer is ``LeakyReLU((X + E) W1 + (E * X) W2)``. In training *node dropout* silences nodes, anew
    in every layer: none of their neighbours hears them. *Message dropout* zeroes entries of a
    layer's result. What is left is scaled up to the same mean.

    Each piece can be left out, and without all of them the model is :class:`LightGCN`.

    Differences from the paper and its code (github.com/xiangwang1223/
    neural_graph_collaborative_filtering):

    1. the code puts an activation around each of the two parts, adds biases, and joins layers 1 ..
       L at unit length; its X is the mean over a node's neighbours and the node itself, in both
       parts, without the added E; the paper does none of this. ``combine="unit"`` is as RecBole
       has it: each layer is set to unit length, and the next one reads that;
    2. for the paper, message dropout drops whole messages, each with one chance; the code drops
       entries of what a node has received, as here;
    3. for the paper, node dropout silences nodes, an exact share of them; here each node has its
       own chance, and the code drops single entries of the adjacency, the same for all layers;
    4. all layers have the size D; initial embeddings are as in LightGCN, and Glorot's, as in the
       code, with ``combine="unit"`` only, where their size beside 1 says what layer 0 counts for;
    5. weight decay acts on all of E^(0), W1 and W2, as in the paper's equation 11, where the code
       has it on the batch's final vectors; the loss is chosen outside.
    """

    builds_on = "lightgcn"
    adds = "affinity messages, transforms, LeakyReLU"

    @dataclass(frozen=True)
    class Config(LightGCN.Config):
        """What NGCF needs to know, besides LightGCN's options.

        Args:
            transform: multiply by learned W1 and W2; else both are the identity.
            affinity: messages have the part with the element-wise product.
            nonlinear: apply LeakyReLU to each layer.
            self_connection: each node sends a message to itself.
            combine: "concat" sets the layers side by side, as the paper does; "unit" the same, with
                layers 1 .. L at unit length; "mean" takes their mean.
            node_dropout: share of the nodes that are silent, in each layer.
            message_dropout: share of the entries of a layer that are zeroed.
        """

        transform: bool = True
        affinity: bool = True
        nonlinear: bool = True
        self_connection: bool = True
        combine: str = "concat"
        node_dropout: float = 0.0
        message_dropout: float = 0.1

        def __post_init__(self):
            super().__post_init__()
            for name in ("transform", "affinity", "nonlinear", "self_connection"):
                if not isinstance(getattr(self, name), bool):
                    raise ValueError(f"{name}={getattr(self, name)!r}: expected True or False")
            require_choice("combine", self.combine, ("concat", "unit", "mean"))
            require_number("node_dropout", self.node_dropout, at_least=0, at_most=1)
            require_number("message_dropout", self.message_dropout, at_least=0, at_most=1)

    def __init__(self, train: Interactions, config: Config | None = None):
        super().__init__(train, config)
        shape = (self.config.layers, self.config.dim, self.config.dim)
        self.neighbour_LDD = self.affinity_LDD = None
        if self.config.transform:
            self.neighbour_LDD = _matrices(shape)
            if self.config.affinity:
                self.affinity_LDD = _matrices(shape)
        if self.config.combine == "unit":
            for part_VD in self.node_VD.split([self.num_users, self.num_items]):
                nn.init.xavier_normal_(part_VD)

    def propagated(self) -> Tensor:
        """(V, (L + 1) D), or (V, D) with combine="mean": what layers 0 .. L say, users first."""
        layers = [self.node_VD]
        for number in range(self.config.layers):
            next_VD = self.step(layers[-1], number)
            layers.append(unit(next_VD) if self.config.combine == "unit" else next_VD)
        if self.config.combine == "mean":
            return torch.stack(layers).mean(0)
        return torch.cat(layers, dim=1)

    def step(self, node_VD: Tensor, number: int) -> Tensor:
        """(V, D): layer ``number`` + 1, from layer ``number``."""
        config = self.config
        heard_V1 = F.dropout(torch.ones_like(node_VD[:, :1]), config.node_dropout, self.training)
        received_VD = propagate(self.adjacency_VV, heard_V1 * node_VD)
        sum_VD = received_VD + node_VD if config.self_connection else received_VD
        if config.transform:
            sum_VD = sum_VD @ self.neighbour_LDD[number]
        if config.affinity:
            affinity_VD = node_VD * received_VD
            if config.transform:
                affinity_VD = affinity_VD @ self.affinity_LDD[number]
            sum_VD = sum_VD + affinity_VD
        if config.nonlinear:
            sum_VD = F.leaky_relu(sum_VD, SLOPE)
        return F.dropout(sum_VD, config.message_dropout, self.training)


def _matrices(shape: tuple[int, int, int]) -> nn.Parameter:
    """A stack of matrices, each drawn as Glorot and Bengio do."""
    matrices = nn.Parameter(torch.empty(shape))
    for matrix_DD in matrices:
        nn.init.xavier_uniform_(matrix_DD)
    return matrices
