"""Wide & Deep: a linear model of chosen cross-products beside an MLP of embeddings.

Shape letters: B rows, F fields, D embedding size.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

from torch import Tensor

from inforec.checks import require_number
from inforec.layers import CrossProducts, FieldEmbedding, LinearTerm, mlp
from inforec.models.base import ClickModel
from inforec.types import Batch, Impressions


class WideDeep(ClickModel):
    """Cheng et al. (2016), "Wide & Deep Learning for Recommender Systems"::

        logit = w_0 + sum over f of w[x_f] + sum over crossed f, g of w[x_f, x_g]     (wide)
                + mlp(v[x_1], .., v[x_F])                                            (deep)

    The wide part remembers pairs, each with a weight of its own; the deep part generalises.

    Differences from the paper:

    1. its crosses are chosen by hand, the installed and the shown app; here two fields are crossed
       if they have at most ``most_pairs`` pairs of values;
    2. Adam for both parts; the paper has FTRL with an L1 penalty for the wide one;
    3. all fields are categorical.
    """

    builds_on = "poly2"
    adds = "an MLP on vectors; only chosen pairs"

    @dataclass(frozen=True)
    class Config:
        """What Wide & Deep needs to know.

        Args:
            dim: embedding size D.
            hidden: units of each hidden layer.
            layers: how many hidden layers.
            dropout: share of each hidden layer that is dropped in training.
            most_pairs: two fields with at most so many pairs of values are crossed; 0 for none.
        """

        dim: int = 16
        hidden: int = 128
        layers: int = 3
        dropout: float = 0.1
        most_pairs: int = 100_000

        def __post_init__(self):
            require_number("dim", self.dim, at_least=1, integer=True)
            require_number("hidden", self.hidden, at_least=1, integer=True)
            require_number("layers", self.layers, at_least=0, integer=True)
            require_number("dropout", self.dropout, at_least=0, at_most=1)
            require_number("most_pairs", self.most_pairs, at_least=0, integer=True)

    def __init__(self, train: Impressions, config: Config | None = None):
        super().__init__(train, config)
        config, sizes = self.config, train.sizes
        self.linear = LinearTerm(train)
        crossed = [
            (f, g)
            for f, g in combinations(train.fields, 2)
            if sizes[f] * sizes[g] <= config.most_pairs
        ]
        self.crosses = CrossProducts(train, crossed) if crossed else None
        self.vector = FieldEmbedding(train, config.dim)
        inputs = len(train.fields) * config.dim
        self.deep = mlp(inputs, config.hidden, config.layers, config.dropout)

    def logit(self, batch: Batch) -> Tensor:
        where = self.vector.where(batch.fields)
        wide_B = self.linear.at(where)
        if self.crosses is not None:
            wide_B = wide_B + self.crosses(batch.fields)
        return wide_B + self.deep(self.vector.at(where).flatten(1))[:, 0]
