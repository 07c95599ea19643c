"""The only evaluator: full ranking of all items that the user has not taken.

Shape letters: U users, B rows of a block, N items, K list length, C categories, T longest history.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from inforec.checks import require_choice, require_number
from inforec.metrics import calibration, diversity, ranking
from inforec.models.base import DotProduct, Ranker
from inforec.types import PAD, Interactions, Query

if TYPE_CHECKING:
    from inforec.data import Dataset

SCORES_HELD = 2**24  # scores held at a time: 64 MB in float32
USERS_EMBEDDED = 2**13  # users embedded at a time: a graph model propagates once for all of them

RANKING = {
    "recall": ranking.recall,
    "precision": ranking.precision,
    "hit": ranking.hit,
    "ndcg": ranking.ndcg,
    "mrr": ranking.mrr,
}


@torch.no_grad()
def recommend(model: Ranker, dataset: Dataset, k: int, on: str = "test") -> Tensor:
    """(U, K) int64: each user's k best items that they have not taken, best first.

    Args:
        model: scores from training histories only, whatever ``on``.
        dataset: training items are never recommended; nor validation items when ``on="test"``.
        k: list length; a user with fewer items left gets -1 in the last places.
        on: "valid" or "test".

    Raises:
        ValueError: if the model gives a score that is not finite.
    """
    require_choice("on", on, ("valid", "test"))
    device = dataset.train.user.device
    model.eval()
    history_UT = dataset.train.history_UT
    taken_UT = history_UT
    if on == "test":
        taken_UT = torch.cat([history_UT, dataset.valid.history_UT], dim=1)
    top_UK = torch.full((dataset.num_users, k), PAD, device=device)
    for user_B, score_BN in score_blocks(model, history_UT, dataset.num_items):
        if not bool(torch.isfinite(score_BN).all()):
            row, item = (~torch.isfinite(score_BN)).nonzero()[0].tolist()
            raise ValueError(
                f"model {type(model).__name__} scores user index {int(user_B[row])}, item index "
                f"{item} as {float(score_BN[row, item])}: expected a finite score"
            )
        taken_BT = taken_UT[user_B]
        row, place = (taken_BT >= 0).nonzero(as_tuple=True)
        score_BN[row, taken_BT[row, place]] = -torch.inf
        best = score_BN.topk(min(k, dataset.num_items), dim=1)
        listed_BK = torch.where(best.values > -torch.inf, best.indices, PAD)
        top_UK[user_B, : listed_BK.shape[1]] = listed_BK
    return top_UK


def score_blocks(
    model: Ranker, history_UT: Tensor, num_items: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (user_B, score_BN) for all users, in blocks that fit in memory."""
    user_U = torch.arange(len(history_UT), device=history_UT.device)
    rows = max(1, SCORES_HELD // num_items)
    if not isinstance(model, DotProduct):
        for user_B in user_U.split(rows):
            yield user_B, model.score(Query(user_B, history_UT[user_B])).clone()
        return
    for chunk in user_U.split(USERS_EMBEDDED):
        query_XD, item_ND = model.embed(Query(chunk, history_UT[chunk]))
        for user_B, query_BD in zip(chunk.split(rows), query_XD.split(rows), strict=True):
            yield user_B, query_BD @ item_ND.T


def evaluate_lists(
    top_UK: Tensor | Sequence,
    dataset: Dataset,
    ks: Sequence[int] = (20,),
    on: str = "test",
) -> dict[str, float]:
    """Metrics of ranked lists, made here or elsewhere.

    Every mean is over the users who have a held-out item in the split ``on``; list metrics of the
    whole catalogue (coverage, gini, item_entropy) count those users' lists.

    Args:
        top_UK: (U, K) item indices for every user, best first, -1 for an empty place at the end.
        dataset: with the split and the categories.
        ks: list lengths to cut at, each at most K.
        on: "valid" or "test".

    Returns:
        ``{"ndcg@20": ...}``: recall, precision, hit, ndcg, mrr; coverage, gini, item_entropy
        (nats), novelty (nats), ild; category_entropy (nats), calibration_kl (nats). NaN where
        undefined.

    Raises:
        ValueError: for a wrong shape, an item out of range, an item twice in a list, a training
            item in a list, or a cut longer than the lists.
    """
    require_choice("on", on, ("valid", "test"))
    truth: Interactions = getattr(dataset, on)
    device = truth.user.device
    top_UK = _as_lists(top_UK).to(device, torch.int64)
    ks = list(ks)
    _check_lists(top_UK, dataset, ks)
    evaluated_X = (truth.user_counts > 0).nonzero()[:, 0]
    top_XK = top_UK[evaluated_X]
    relevant_X = truth.user_counts[evaluated_X]
    hit_XK = _pairs_in(evaluated_X, top_XK, truth)

    metrics: dict[str, float] = {}
    for k in ks:
        cut_XK = top_XK[:, :k]
        for name, function in RANKING.items():
            metrics[f"{name}@{k}"] = _mean(function(hit_XK[:, :k], relevant_X))
        exposure_N = diversity.exposure(cut_XK, dataset.num_items)
        metrics[f"coverage@{k}"] = diversity.coverage(exposure_N)
        metrics[f"gini@{k}"] = diversity.gini(exposure_N)
        metrics[f"item_entropy@{k}"] = diversity.item_entropy(exposure_N)
        metrics[f"novelty@{k}"] = _mean(diversity.novelty(cut_XK, dataset.train.item_counts))
        if dataset.category_NC is not None:
            list_XC = diversity.list_categories(cut_XK, dataset.category_NC)
            interest_XC = dataset.interest_UC[evaluated_X]
            metrics[f"ild@{k}"] = _mean(diversity.ild(cut_XK, dataset.category_NC))
            metrics[f"category_entropy@{k}"] = _mean(diversity.category_entropy(list_XC))
            metrics[f"calibration_kl@{k}"] = _mean(calibration.calibration_kl(interest_XC, list_XC))
    return metrics


def evaluate(
    model: Ranker, dataset: Dataset, ks: Sequence[int] = (20,), on: str = "test"
) -> tuple[dict[str, float], Tensor]:
    """Rank all unseen items for every user and measure the lists.

    Returns:
        The metrics of :func:`evaluate_lists`, and the lists themselves (U, max(ks)).
    """
    top_UK = recommend(model, dataset, max(ks), on)
    return evaluate_lists(top_UK, dataset, ks, on), top_UK


def _pairs_in(user_X: Tensor, item_XK: Tensor, interactions: Interactions) -> Tensor:
    """(X, K) bool: whether each (user, item) is among the interactions."""
    size = interactions.num_items
    pair_E = (interactions.user * size + interactions.item).sort().values
    if len(pair_E) == 0:
        return torch.zeros_like(item_XK, dtype=torch.bool)
    pair_XK = user_X[:, None] * size + item_XK
    place_XK = torch.searchsorted(pair_E, pair_XK).clamp(max=len(pair_E) - 1)
    return (pair_E[place_XK] == pair_XK) & (item_XK >= 0)


def _mean(value_U: Tensor) -> float:
    return float(value_U.nanmean()) if len(value_U) else math.nan


def _as_lists(top_UK) -> Tensor:
    """What people pass as lists, as a tensor of integers."""
    if not isinstance(top_UK, Tensor):
        try:
            top_UK = torch.from_numpy(np.array([np.asarray(row) for row in top_UK]))
        except (TypeError, ValueError) as error:
            raise ValueError(
                "top_UK: expected one list of item indices a user, all of one length"
            ) from error
    if top_UK.is_floating_point() or top_UK.is_complex() or top_UK.dtype == torch.bool:
        raise ValueError(f"top_UK of {top_UK.dtype}: expected item indices, whole numbers")
    return top_UK


def _check_lists(top_UK: Tensor, dataset: Dataset, ks: list[int]) -> None:
    if top_UK.ndim != 2 or len(top_UK) != dataset.num_users:
        raise ValueError(
            f"top_UK of shape {tuple(top_UK.shape)}: expected one list for each of the "
            f"{dataset.num_users} users, as (users, K)"
        )
    for k in ks:
        require_number("ks", k, at_least=1, at_most=top_UK.shape[1], integer=True)
    wrong = (top_UK < PAD) | (top_UK >= dataset.num_items)
    if bool(wrong.any()):
        row, column = wrong.nonzero()[0].tolist()
        raise ValueError(
            f"top_UK[{row}, {column}]={int(top_UK[row, column])}: expected an item index from 0 to "
            f"{dataset.num_items - 1}, or -1 for an empty place"
        )
    ordered_UK = top_UK.sort(1).values
    twice = (ordered_UK[:, 1:] == ordered_UK[:, :-1]) & (ordered_UK[:, 1:] >= 0)
    if bool(twice.any()):
        row, column = twice.nonzero()[0].tolist()
        raise ValueError(
            f"top_UK[{row}] holds item {int(ordered_UK[row, column])} twice: expected it once"
        )
    user_U = torch.arange(len(top_UK), device=top_UK.device)
    seen = _pairs_in(user_U, top_UK, dataset.train)
    if bool(seen.any()):
        row, column = seen.nonzero()[0].tolist()
        raise ValueError(
            f"top_UK[{row}, {column}]={int(top_UK[row, column])}: expected no item that the user "
            "took in training"
        )
