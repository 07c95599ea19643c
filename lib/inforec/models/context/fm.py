"""Factorisation machine: the weight of a pair of values is the dot product of two vectors.

Shape letters: B rows, F fields, D embedding size.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from inforec.checks import require_number
from inforec.layers import FieldEmbedding, LinearTerm, interaction
from inforec.models.base import ClickModel
from inforec.types import Batch, Impressions


class FM(ClickModel):
    """Rendle (2010), "Factorization Machines", equation 1, computed by its lemma 3.1 in O(F D).

        logit = w_0 + sum over f of w[x_f] + sum over f < g of v[x_f] . v[x_g]

    with x_f the row's value of the field f. A value that training never saw has the weight 0 and
    the vector 0, so that the others decide.

    Differences from the paper:

    1. of several values of one field the mean vector counts, and their pairs among themselves do
       not;
    2. one learning rate and one weight decay for all parameters, by Adam.
    """

    builds_on = "poly2"
    adds = "the weight of a pair is the product of two vectors"
    row_wise = True

    @dataclass(frozen=True)
    class Config:
        """dim: embedding size D."""

        dim: int = 16

        def __post_init__(self):
            require_number("dim", self.dim, at_least=1, integer=True)

    def __init__(self, train: Impressions, config: Config | None = None):
        super().__init__(train, config)
        self.linear = LinearTerm(train)
        self.vector = FieldEmbedding(train, self.config.dim)

    def logit(self, batch: Batch) -> Tensor:
        where = self.vector.where(batch.fields)
        return self.linear.at(where) + interaction(self.vector.at(where)).sum(1)
