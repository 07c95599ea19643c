"""Decision-time calibration: choose the list after the scores are known.

Shape letters: B users, N items, M candidates, C categories, K list length.
"""

from __future__ import annotations

import torch
from torch import Tensor

from inforec.checks import require_number
from inforec.metrics.calibration import SMOOTHING
from inforec.regularizers import kl


def steck(
    score_BM: Tensor,
    item_BM: Tensor,
    interest_BC: Tensor,
    category_NC: Tensor,
    *,
    k: int,
    trade_off: float,
    sort_by_score: bool = True,
) -> Tensor:
    """Greedy calibrated lists: K times, add the item that raises the list's value most.

        value(I) = (1 - trade_off) sum over I of score - trade_off KL(p || q~(I)),
        q~(I) = 0.99 q(I) + 0.01 p,  q(I) = mean over I of p(c | i).

    The greedy search of Steck (2018), "Calibrated recommendations", for all users at once.

    Args:
        score_BM: (B, M) scores of the candidates; their scale matters against the divergence.
        item_BM: (B, M) int64 candidate items.
        interest_BC: (B, C) p(c | u).
        category_NC: (N, C) p(c | i).
        k: list length, at most M.
        trade_off: Steck's lambda, from 0 (scores only) to 1 (calibration only).
        sort_by_score: return the chosen items in descending score, not in the order of choice; the
            list's calibration does not change, its NDCG usually rises.

    Returns:
        (B, k) int64 items.

    Raises:
        ValueError: for k or trade_off out of range.
    """
    require_number("k", k, at_least=1, at_most=item_BM.shape[1], integer=True)
    require_number("trade_off", trade_off, at_least=0, at_most=1)
    category_BMC = category_NC[item_BM]
    sum_BC = torch.zeros_like(interest_BC)
    free_BM = torch.ones_like(item_BM, dtype=torch.bool)
    row_B = torch.arange(len(item_BM), device=item_BM.device)
    chosen = []
    for size in range(1, k + 1):
        # Scores already chosen are the same for every candidate: they drop out of the argmax.
        law_BMC = (sum_BC[:, None] + category_BMC) / size
        law_BMC = (1 - SMOOTHING) * law_BMC + SMOOTHING * interest_BC[:, None]
        value_BM = (1 - trade_off) * score_BM - trade_off * kl(interest_BC[:, None], law_BMC)
        place_B = value_BM.masked_fill(~free_BM, -torch.inf).argmax(1)
        free_BM[row_B, place_B] = False
        sum_BC = sum_BC + category_BMC[row_B, place_B]
        chosen.append(place_B)
    place_BK = torch.stack(chosen, dim=1)
    if sort_by_score:
        order_BK = score_BM.gather(1, place_BK).argsort(dim=1, descending=True, stable=True)
        place_BK = place_BK.gather(1, order_BK)
    return item_BM.gather(1, place_BK)
