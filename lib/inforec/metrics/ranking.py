"""Accuracy of top-K lists: one value a user, NaN where the user has nothing to find.

Shape letters: U users, K list length.
"""

from __future__ import annotations

import torch
from torch import Tensor


def _defined(value_U: Tensor, relevant_U: Tensor) -> Tensor:
    """NaN for users without a held-out item: there the metric is undefined, not 0."""
    return torch.where(relevant_U > 0, value_U, torch.nan)


def recall(hit_UK: Tensor, relevant_U: Tensor) -> Tensor:
    """(U,) share of the user's held-out items that are in the list.

    Args:
        hit_UK: (U, K) bool, whether the item at each rank is held out for the user.
        relevant_U: (U,) number of held-out items.
    """
    return _defined(hit_UK.double().sum(1) / relevant_U, relevant_U)


def precision(hit_UK: Tensor, relevant_U: Tensor) -> Tensor:
    """(U,) share of the K places that hold a held-out item; arguments as in :func:`recall`."""
    return _defined(hit_UK.double().mean(1), relevant_U)


def hit(hit_UK: Tensor, relevant_U: Tensor) -> Tensor:
    """(U,) 1 if any held-out item is in the list; arguments as in :func:`recall`."""
    return _defined(hit_UK.any(1).double(), relevant_U)


def ndcg(hit_UK: Tensor, relevant_U: Tensor) -> Tensor:
    """(U,) DCG over the DCG of the ideal list, which holds min(K, relevant) hits at the top.

    DCG sums 1 / log2(rank + 1) over the hits. Järvelin and Kekäläinen (2002), binary gains, the
    ideal list cut at K. Arguments as in :func:`recall`.
    """
    size = hit_UK.shape[1]
    rank_K = torch.arange(1, size + 1, dtype=torch.float64, device=hit_UK.device)
    discount_K = 1 / torch.log2(rank_K + 1)
    # On the CPU, because CUDA has no deterministic cumulative sum.
    ideal_K = torch.cat([torch.zeros(1), discount_K.cpu().cumsum(0)]).to(hit_UK.device)
    return _defined((hit_UK * discount_K).sum(1) / ideal_K[relevant_U.clamp(max=size)], relevant_U)


def mrr(hit_UK: Tensor, relevant_U: Tensor) -> Tensor:
    """(U,) 1 / rank of the first hit, 0 without one; arguments as in :func:`recall`."""
    rank_K = torch.arange(1, hit_UK.shape[1] + 1, dtype=torch.float64, device=hit_UK.device)
    return _defined((hit_UK / rank_K).amax(1), relevant_U)
