"""DeepFM: a factorisation machine and an MLP that share their embeddings.

Shape letters: B rows, F fields, D embedding size.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from inforec.checks import require_number
from inforec.layers import FieldEmbedding, LinearTerm, interaction, mlp
from inforec.models.base import ClickModel
from inforec.types import Batch, Impressions


class DeepFM(ClickModel):
    """Guo et al. (2017), "DeepFM: A Factorization-Machine based Neural Network"::

        logit = w_0 + sum over f of w[x_f] + sum over f < g of v[x_f] . v[x_g]
                + mlp(v[x_1], .., v[x_F])

    Both parts read the same vectors v, and both send their gradient there.

    Differences from the paper:

    1. of several values of one field the mean vector counts, and their pairs do not;
    2. all fields are categorical.
    """

    builds_on = "fm"
    adds = "an MLP on the same vectors, added"

    @dataclass(frozen=True)
    class Config:
        """What DeepFM needs to know.

        Args:
            dim: embedding size D.
            hidden: units of each hidden layer.
            layers: how many hidden layers.
            dropout: share of each hidden layer that is dropped in training.
        """

        dim: int = 16
        hidden: int = 128
        layers: int = 3
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
        inputs = len(train.fields) * config.dim
        self.deep = mlp(inputs, config.hidden, config.layers, config.dropout)

    def logit(self, batch: Batch) -> Tensor:
        where = self.vector.where(batch.fields)
        vector_BFD = self.vector.at(where)
        shallow_B = self.linear.at(where) + interaction(vector_BFD).sum(1)
        return shallow_B + self.deep(vector_BFD.flatten(1))[:, 0]
