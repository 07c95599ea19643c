"""DAE: hide a part of a user's items, and learn to give all of them back.

Shape letters: B rows, T longest history, N items, H hidden units.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from inforec.checks import require_number
from inforec.layers import as_dot_product, corrupted_sum, start_dense
from inforec.models.base import DotProduct
from inforec.types import Interactions, Query


class DAE(DotProduct):
    """Vincent et al. (2008), "Extracting and Composing Robust Features with Denoising
    Autoencoders", on a user's items; with the softmax loss Mult-DAE of Liang et al. (2018)::

        x~ = x / ||x||, each item hidden with probability q, the others times 1 / (1 - q)
        scores = W2 tanh(W1 x~ + b1) + b2                         x~ = x / ||x|| outside training

    with x the 0-1 history. The loss is chosen outside: "softmax" over the catalogue, "logistic" or
    "mse" over the whole row.

    Differences from the papers and from Mult-DAE's code (github.com/dawenl/vae_cf):

    1. Vincent et al. do not scale what they leave, and take a logistic function for tanh;
    2. in Liang et al. users of the evaluation are not those of training; here a user's training
       items are both input and target, and the held-out items of the same users are ranked;
    3. the penalty is Adam's weight decay, on matrices and biases.
    """

    builds_on = "ease"
    adds = "a hidden layer, and a part of the input is hidden"
    reconstructs = True
    reads_history = True

    @dataclass(frozen=True)
    class Config:
        """What DAE needs to know.

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
        self.input_NH = nn.Parameter(torch.empty(self.num_items, self.config.hidden))
        self.input_H = nn.Parameter(torch.empty(self.config.hidden))
        self.output = nn.Linear(self.config.hidden, self.num_items)
        start_dense(self)

    def embed(self, query: Query) -> tuple[Tensor, Tensor]:
        sum_BH = corrupted_sum(
            query.history,
            self.input_NH,
            corruption=self.config.corruption,
            training=self.training,
            unit_length=True,
        )
        return as_dot_product((sum_BH + self.input_H).tanh(), self.output)
