"""Diversity: of the catalogue as it is shown to everybody, and of each user's own list.

A place of a list that holds -1 is empty and is not counted.

Shape letters: U users, K list length, N items, C categories.
"""

from __future__ import annotations

import torch
from torch import Tensor


def exposure(top_UK: Tensor, num_items: int) -> Tensor:
    """(N,) how often each item is recommended."""
    return torch.bincount(top_UK[top_UK >= 0], minlength=num_items)


def coverage(exposure_N: Tensor) -> float:
    """Share of the N items recommended to at least one user."""
    return float((exposure_N > 0).double().mean())


def gini(exposure_N: Tensor) -> float:
    """Gini index of exposure over all N items, 0 = all alike, towards 1 = one item has it all.

    With x sorted ascending: sum_j (2 j - N - 1) x_j / (N sum x). Items never shown count as 0.
    """
    sorted_N = exposure_N.double().sort().values
    size = len(sorted_N)
    weight_N = 2 * torch.arange(1, size + 1, device=sorted_N.device) - size - 1
    return float((weight_N * sorted_N).sum() / (size * sorted_N.sum()))


def item_entropy(exposure_N: Tensor) -> float:
    """Entropy in nats of the law of a random place of a random list: exp of it counts items."""
    share_N = exposure_N.double() / exposure_N.sum()
    return float(torch.special.entr(share_N).sum())


def novelty(top_UK: Tensor, item_counts_N: Tensor) -> Tensor:
    """(U,) mean surprise of the list's items in nats, -log((n_i + 1) / (n + N)).

    n_i are training interactions, n their sum: popularity with one added to every item, so that an
    item never seen in training has a finite surprise.
    """
    count_N = item_counts_N.double() + 1
    surprise_N = -(count_N / count_N.sum()).log()
    return _list_mean(surprise_N[top_UK.clamp(min=0)], top_UK >= 0)


def ild(top_UK: Tensor, category_NC: Tensor) -> Tensor:
    """(U,) intra-list diversity: mean over pairs of 1 - cosine of the items' category rows.

    Ziegler et al. (2005) with a distance for a similarity. NaN for lists of fewer than two items.
    """
    unit_NC = torch.nn.functional.normalize(category_NC.double(), dim=1)
    filled_UK = top_UK >= 0
    unit_UKC = unit_NC[top_UK.clamp(min=0)] * filled_UK[:, :, None]
    size_U = filled_UK.sum(1).double()
    # |sum of unit rows|^2 = the sum of all cosines; take away the diagonal to get the pairs.
    pair_sum_U = unit_UKC.sum(1).square().sum(1) - unit_UKC.square().sum((1, 2))
    return 1 - pair_sum_U / (size_U * (size_U - 1))


def category_entropy(list_UC: Tensor) -> Tensor:
    """(U,) entropy in nats of each list's law over categories, as of ``list_categories``."""
    return torch.special.entr(list_UC).sum(1)


def list_categories(top_UK: Tensor, category_NC: Tensor) -> Tensor:
    """(U, C) float64: each list's law over categories, the mean of its items' rows p(c | i)."""
    return _list_mean(category_NC.double()[top_UK.clamp(min=0)], top_UK >= 0)


def _list_mean(value: Tensor, filled_UK: Tensor) -> Tensor:
    weight = filled_UK.reshape(*filled_UK.shape, *[1] * (value.ndim - 2)).to(value.dtype)
    return (value * weight).sum(1) / weight.sum(1)
