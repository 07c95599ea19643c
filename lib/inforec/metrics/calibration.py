"""Calibration: how far a list's categories are from the user's own interests.

Shape letters: U users, C categories.
"""

from __future__ import annotations

from torch import Tensor

from inforec.regularizers import kl

SMOOTHING = 0.01


def calibration_kl(interest_UC: Tensor, list_UC: Tensor) -> Tensor:
    """(U,) KL(p || q~) in nats, with q~ = 0.99 q + 0.01 p.

    Steck (2018), "Calibrated recommendations", in nats; the mixture keeps the divergence finite
    when the list lacks a category of the user's.

    Args:
        interest_UC: (U, C) p(c | u) from the training items, each item's mass split evenly over its
            categories.
        list_UC: (U, C) q(c | u) of the list.
    """
    interest_UC = interest_UC.double()
    return kl(interest_UC, (1 - SMOOTHING) * list_UC + SMOOTHING * interest_UC)
