"""Field-aware factorisation machine: each value has a vector for each field that it meets.

Shape letters: B rows, F fields, D embedding size, P = F (F - 1) / 2 pairs of fields.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from inforec.checks import require_number
from inforec.layers import FieldEmbedding, LinearTerm
from inforec.models.base import ClickModel
from inforec.types import Batch, Impressions


class FFM(ClickModel):
    """Juan et al. (2016), "Field-aware Factorization Machines for CTR Prediction", equation 4.

        logit = w_0 + sum over f of w[x_f] + sum over f < g of v[x_f, g] . v[x_g, f]

    with v[x, g] the vector that the value x has for meeting the field g: F D numbers a value, so D
    is smaller than in a factorisation machine.

    Differences from the paper:
    1. it leaves w_0 and w out of the equation, and has them in its code;
    2. of several values of one field the mean vector counts, and their pairs do not;
    3. Adam instead of AdaGrad; rows are not scaled to unit length.
    """

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
        own_P, other_P = torch.triu_indices(num_fields, num_fields, offset=1)
        self.register_buffer("own_P", own_P, persistent=False)
        self.register_buffer("other_P", other_P, persistent=False)

    def logit(self, batch: Batch) -> Tensor:
        vector_BFX = self.vector(batch.fields)
        vector_BFFD = vector_BFX.unflatten(2, (vector_BFX.shape[1], self.config.dim))
        own_BPD = vector_BFFD[:, self.own_P, self.other_P]
        other_BPD = vector_BFFD[:, self.other_P, self.own_P]
        return self.linear(batch.fields) + (own_BPD * other_BPD).sum((1, 2))
