"""CDAE: a denoising auto-encoder whose hidden layer also knows who the user is.

Shape letters: B rows, U users, N items, H hidden units.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from inforec.checks import require_number
from inforec.layers import as_dot_product, corrupted_sum, start_dense
from inforec.models.base import DotProduct
from inforec.types import Interactions, Query


class CDAE(DotProduct):
    """Wu et al. (2016), "Collaborative Denoising Auto-Encoders for Top-N Recommender Systems"::

        x~ = x, each item hidden with probability q, the others times 1 / (1 - q)
        z = sigmoid(W' x~ + v_u + b)                              x~ = x outside training
        scores = W2 z + b2

    with x the 0-1 history and v_u the user's own vector. The loss is chosen outside: "logistic" or
    "mse" (the paper's square loss) over the whole row, "sampled_logistic" on the user's items and
    sampled others, as in the paper, or "softmax".

    Differences from the paper and its code (github.com/jasonyaw/CDAE):

    1. the paper also tries an identity for the sigmoid, and the code tanh;
    2. the output's matrix is not tied to the input's, which the code does by default;
    3. with sampled others the code takes five for each item and corrupts a user's history once for
       all of them; here each pair has a corruption of its own, and the number is the run's;
    4. Adam for AdaGrad, and one weight decay for all parameters.
    """

    builds_on = "dae"
    adds = "a vector of the user's own in the hidden layer"
    reconstructs = True
    reads_history = True

    @dataclass(frozen=True)
    class Config:
        """What CDAE needs to know.

        Args:
            hidden: H, units of the one hidden layer.
            corruption: q, share of the history's items that are hidden in training.
        """

        hidden: int = 200
        corruption: float = 0.5

        def __post_init__(self):
            require_number("hidden", self.hidden, at_least=1, integer=True)
            require_number("corruption", self.corruption, at_least=0, at_most=0.99)

    def __init__(self, train: Interactions, config: Config | None = None):
        super().__init__(train, config)
        hidden = self.config.hidden
        self.input_NH = nn.Parameter(torch.empty(self.num_items, hidden))
        self.input_H = nn.Parameter(torch.empty(hidden))
        self.user_UH = nn.Embedding(self.num_users, hidden)
        self.output = nn.Linear(hidden, self.num_items)
        start_dense(self)

    def embed(self, query: Query) -> tuple[Tensor, Tensor]:
        sum_BH = corrupted_sum(
            query.history,
            self.input_NH,
            corruption=self.config.corruption,
            training=self.training,
            unit_length=False,
        )
        hidden_BH = (sum_BH + self.user_UH(query.user) + self.input_H).sigmoid()
        return as_dot_product(hidden_BH, self.output)
