"""Interactions of any size whose popularity falls as it does in real catalogues.

The r-th most popular of n things is drawn with probability proportional to (r + q)^(-s), the law of
Zipf as generalised by Mandelbrot: a flat head of about q things, then a power law. Items and users
have such a law each, and an interaction draws both; equal pairs count once. The two constants are
those of a small grid whose shares of the top 1, 5, 10, 20 and 50 % come nearest to Gowalla's, of
items and of users alike.
"""

from __future__ import annotations

import torch
from torch import Tensor

from inforec.types import Interactions

EXPONENT = 0.8  # s
HEAD = 0.01  # q as a share of the things


def popularity(size: int) -> Tensor:
    """(size,) float64 probabilities by rank; their sum is 1."""
    weight = (torch.arange(1, size + 1, dtype=torch.float64) + HEAD * size) ** -EXPONENT
    return weight / weight.sum()


def interactions(num_users: int, num_items: int, draws: int, seed: int = 0) -> Interactions:
    """At most ``draws`` distinct interactions; numbers say nothing of popularity.

    Args:
        num_users: U.
        num_items: N.
        draws: how many pairs are drawn before equal ones are struck out.
        seed: fixes them.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(size):
        # By inverting the distribution function: torch.multinomial stops at 2^24 things.
        at = torch.rand(draws, generator=generator, dtype=torch.float64)
        rank = torch.searchsorted(popularity(size).cumsum(0), at).clamp(max=size - 1)
        return torch.randperm(size, generator=generator)[rank]

    pair = torch.unique(draw(num_users) * num_items + draw(num_items))
    return Interactions(pair // num_items, pair % num_items, num_users, num_items)
