"""Small parts that several models share.

Shape letters: B rows, T places of a padded item table, N items, D embedding size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def multi_hot(history_BT: Tensor, num_items: int) -> Tensor:
    """(B, N) float: 1 where the item is in the row's history, 0 elsewhere; -1 is padding."""
    hot_BN = torch.zeros(len(history_BT), num_items, device=history_BT.device)
    row, place = (history_BT >= 0).nonzero(as_tuple=True)
    hot_BN[row, history_BT[row, place]] = 1.0
    return hot_BN


def unit(x_BD: Tensor) -> Tensor:
    """(B, D): each row divided by its length; a row shorter than 1e-6 is divided by 1e-6.

    So a row of zeros stays zero, and the gradient is finite.
    """
    return F.normalize(x_BD, dim=-1, eps=1e-6)
