"""Field-aware factorisation machine: each value has a vector for each field that it meets.

Shape letters: B rows, F fields, D embedding size, X = F D.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

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
        where = self.vector.where(batch.fields)
        vector_BFX = self.vector.at(where)
        vector_BFFD = vector_BFX.unflatten(2, (vector_BFX.shape[1], self.config.dim))
        return self.linear.at(where) + FieldPairs.apply(vector_BFFD)


class FieldPairs(torch.autograd.Function):
    """(B, F, F, D) -> (B,): the sum over f < g of v[f, g] . v[g, f].

    All ordered pairs hold each pair twice, and a field with itself, whose vectors are unused. The
    gradient of v[f, g] is v[g, f], which the forward pass has laid out: several times as fast as
    autograd, which crosses the transposed vectors again.
    """

    @staticmethod
    def forward(ctx, vector_BFFD: Tensor) -> Tensor:
        partner_BFFD = vector_BFFD.transpose(1, 2).clone(memory_format=torch.contiguous_format)
        partner_BFFD.diagonal(dim1=1, dim2=2).zero_()
        ctx.save_for_backward(partner_BFFD)
        return (vector_BFFD * partner_BFFD).flatten(1).sum(1) / 2

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_B: Tensor) -> Tensor:
        (partner_BFFD,) = ctx.saved_tensors
        return (partner_BFFD.flatten(1) * grad_B[:, None]).view_as(partner_BFFD)
