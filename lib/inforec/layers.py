"""Small parts that several models share.

Shape letters: B rows, T places of a padded item table, N items, D embedding size, H hidden units.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inforec.types import PAD


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


def corrupted_sum(
    history_BT: Tensor, item_NH: Tensor, *, corruption: float, training: bool, unit_length: bool
) -> Tensor:
    """(B, H): x~ W, the first layer of a denoising auto-encoder on 0-1 histories x.

    In training each item of a history is hidden with probability q and the others count 1 / (1 - q)
    times: the mean of x~ is x. As x has few ones, their rows of W are summed, and no (B, N) matrix
    is made.

    Args:
        history_BT: (B, T) int64, the items of each row, padded with -1.
        item_NH: (N, H) W.
        corruption: q.
        training: whether to hide anything.
        unit_length: whether x is divided by its length first.
    """
    taken_BT = (history_BT != PAD).to(item_NH.dtype)
    share_BT = F.dropout(unit(taken_BT) if unit_length else taken_BT, corruption, training)
    return F.embedding_bag(
        history_BT.clamp(min=0), item_NH, per_sample_weights=share_BT, mode="sum"
    )


def as_dot_product(hidden_BH: Tensor, output: nn.Linear) -> tuple[Tensor, Tensor]:
    """((B, H + 1), (N, H + 1)): ``output(hidden_BH)`` as dot products, the bias as a coordinate."""
    query_BX = torch.cat([hidden_BH, torch.ones_like(hidden_BH[:, :1])], dim=1)
    return query_BX, torch.cat([output.weight, output.bias[:, None]], dim=1)


def start_dense(model: nn.Module) -> None:
    """Start every matrix by Xavier's uniform law and every vector near 0, as Mult-VAE's code."""
    for parameter in model.parameters():
        if parameter.ndim == 2:
            nn.init.xavier_uniform_(parameter)
        else:
            nn.init.trunc_normal_(parameter, std=0.001, a=-0.002, b=0.002)
