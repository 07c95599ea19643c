"""Biased matrix factorisation of ratings.

Shape letters: B rows, U users, N items, D embedding size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from inforec.checks import require_number
from inforec.models.base import RatingModel
from inforec.types import Batch, Interactions, Output


class BiasedMF(RatingModel):
    """Koren, Bell and Volinsky (2009), "Matrix Factorization Techniques for Recommender Systems"::

        r_ui = mean + b_u + b_i + p_u . q_i
        minimise over the observed ratings
        sum (rating - r_ui)^2 + lambda (|p_u|^2 + |q_i|^2 + b_u^2 + b_i^2)

    The penalty stands inside the sum: who rates more is penalised as often.

    Differences from the paper: Adam on batches for plain stochastic gradients or alternating least
    squares, and the sum is divided by the number of ratings.
    """

    builds_on = "mf"
    adds = "a bias for each user and item; ratings"

    @dataclass(frozen=True)
    class Config:
        """dim: embedding size D. penalty: lambda, the weight of the squared parameters."""

        dim: int = 64
        penalty: float = 0.05

        def __post_init__(self):
            require_number("dim", self.dim, at_least=1, integer=True)
            require_number("penalty", self.penalty, at_least=0)

    def __init__(self, train: Interactions, config: Config | None = None):
        super().__init__(train, config)
        self.user_UD = nn.Embedding(self.num_users, self.config.dim)
        self.item_ND = nn.Embedding(self.num_items, self.config.dim)
        self.user_U1 = nn.Embedding(self.num_users, 1)
        self.item_N1 = nn.Embedding(self.num_items, 1)
        for table in (self.user_UD, self.item_ND, self.user_U1, self.item_N1):
            nn.init.normal_(table.weight, std=0.01)

    def parts(self, user_B: Tensor, item_B: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """p_u (B, D), q_i (B, D), b_u (B, 1) and b_i (B, 1)."""
        user_BD, item_BD = self.user_UD(user_B), self.item_ND(item_B)
        return user_BD, item_BD, self.user_U1(user_B), self.item_N1(item_B)

    def predict(self, user_B: Tensor, item_B: Tensor) -> Tensor:
        return self.combine(*self.parts(user_B, item_B))

    def combine(self, user_BD, item_BD, user_B1, item_B1) -> Tensor:
        """(B,) the ratings that these parts give."""
        return self.mean + (user_B1 + item_B1)[:, 0] + torch.linalg.vecdot(user_BD, item_BD)

    def forward(self, batch: Batch) -> Output:
        parts = self.parts(batch.user, batch.items[:, 0])
        square = sum(part.square().sum(1) for part in parts).mean()
        aux = {"penalty": self.config.penalty * square} if self.config.penalty else {}
        return Output(
            self.combine(*parts), target=batch.target, law="gaussian", complete=False, aux=aux
        )
