"""Neural factorisation machine: an MLP reads the interactions before they are summed.

Shape letters: B rows, F fields, D embedding size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from inforec.checks import require_number
from inforec.layers import FieldEmbedding, LinearTerm, interaction, mlp
from inforec.models.base import ClickModel
from inforec.types import Batch, Impressions


class NFM(ClickModel):
    """He and Chua (2017), "Neural Factorization Machines for Sparse Predictive Analytics".

        logit = w_0 + sum over f of w[x_f] + mlp(sum over f < g of v[x_f] * v[x_g])

    with * the product of coordinates: what is summed over D in a factorisation machine is the input
    of the MLP here. With no hidden layer, and a last layer of ones, the two are the same.

    Differences from the paper and its code:

    1. no batch normalisation;
    2. of several values of one field the mean vector counts, and their pairs do not;
    3. logistic loss; the paper fits targets 1 and -1 by squared error.
    """

    builds_on = "fm"
    adds = "an MLP on the sum of the pairs' products"

    @dataclass(frozen=True)
    class Config:
        """What NFM needs to know.

        Args:
            dim: embedding size D.
            hidden: units of each hidden layer.
            layers: how many hidden layers; 0 for none.
            dropout: share of the interactions, and of each hidden layer, that is dropped.
        """

        dim: int = 16
        hidden: int = 64
        layers: int = 1
        dropout: float = 0.1

        def __post_init__(self):
            require_number("dim", self.dim, at_least=1, integer=True)
            require_number("hidden", self.hidden, at_least=1, integer=True)
            require_number("layers", self.layers, at_least=0, integer=True)
            require_number("dropout", self.dropout, at_least=0, at_most=1)

    def __init__(self, train: Impressions, config: Config | None = None):
        super().__init__(train, config)
        config = self.config
        self.linear = LinearTerm(train)
        self.vector = FieldEmbedding(train, config.dim)
        self.deep = mlp(config.dim, config.hidden, config.layers, config.dropout)

    def logit(self, batch: Batch) -> Tensor:
        where = self.vector.where(batch.fields)
        pooled_BD = interaction(self.vector.at(where))
        pooled_BD = F.dropout(pooled_BD, self.config.dropout, self.training)
        return self.linear.at(where) + self.deep(pooled_BD)[:, 0]
