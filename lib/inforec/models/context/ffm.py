"""Field-aware factorisation machine: each value has a vector for each field that it meets.

Shape letters: B rows, F fields, D embedding size, X = F D.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from inforec.checks import require_number
from inforec.layers import FieldEmbedding, LinearTerm
from inforec.models.base import ClickModel
from inforec.types import Batch, Impressions


class FFM(ClickModel):
    """Juan et al. (2016), "Field-aware Factorization Machines for CTR Prediction".

        logit = w_0 + sum over f of w[x_f] + sum over f < g of v[x_f, g] . v[x_g, f]

    with v[x, g] the vector that the value x has for meeting the field g: F D numbers a value, so D
    is smaller than in a factorisation machine.

    Differences from the paper:

    1. its equation has the pairs alone, without w_0 and w;
    2. of several values of one field the mean vector counts, and their pairs do not;
    3. Adam instead of AdaGrad; rows are not scaled to unit length.
    """

    builds_on = "fm"
    adds = "a value has a vector for each field that it meets"
    row_wise = True

    @dataclass(frozen=True)
    class Config:
        """dim: embedding size D of each of the F vectors of a value."""

        dim: int = 4

        def __post_init__(self):
            require_number("dim", self.dim, at_least=1, integer=True)

    def __init__(self, train: Impressions, config: Config | None = None):
        super().__init__(train, config)
        self.linear = LinearTerm(train)
        num_fields = len(train.fields)
        self.vector = FieldEmbedding(train, num_fields * self.config.dim)

    def logit(self, batch: Batch) -> Tensor:
        vector_BFX = self.vector(batch.fields)
        vector_BFFD = vector_BFX.unflatten(2, (vector_BFX.shape[1], self.config.dim))
        # All ordered pairs hold each pair twice, and a field with itself, whose vectors are unused.
        every_B = (vector_BFFD * vector_BFFD.transpose(1, 2)).sum((1, 2, 3))
        own_B = vector_BFFD.diagonal(dim1=1, dim2=2).square().sum((1, 2))
        return self.linear(batch.fields) + (every_B - own_B) / 2
