"""Poly2: logistic regression with a weight for each pair of values.

Shape letters: B rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

from torch import Tensor

from inforec.checks import require_number
from inforec.layers import CrossProducts, LinearTerm
from inforec.models.base import ClickModel
from inforec.types import Batch, Impressions


class Poly2(ClickModel):
    """Chang et al. (2010), "Training and Testing Low-degree Polynomial Data Mappings via Linear
    SVM", in the form for click-through rates of Juan et al. (2016).

        logit = w_0 + sum over f of w[x_f] + sum over f < g of w[h(x_f, x_g)]

    with h the place of a pair of values among the weights: its hash into ``buckets`` places that
    all pairs share, or a place of its own.

    Differences from the papers:

    1. logistic loss instead of the hinge loss of the first;
    2. pairs are of two fields, not of two values of one field, nor of a value with itself;
    3. a pair with a value that training never saw counts 0.
    """

    builds_on = "lr"
    adds = "a weight for each pair of values"
    row_wise = True

    @dataclass(frozen=True)
    class Config:
        """buckets: weights that the pairs share by their hash; 0 gives each pair its own."""

        buckets: int = 2**18

        def __post_init__(self):
            require_number("buckets", self.buckets, at_least=0, integer=True)

    def __init__(self, train: Impressions, config: Config | None = None):
        super().__init__(train, config)
        self.linear = LinearTerm(train)
        pairs = list(combinations(train.fields, 2))
        self.pairs = CrossProducts(train, pairs, self.config.buckets)

    def logit(self, batch: Batch) -> Tensor:
        return self.linear(batch.fields) + self.pairs(batch.fields)
