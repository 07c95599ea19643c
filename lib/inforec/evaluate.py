"""The only evaluator: full ranking of all items that the user has not taken; of click-through
models the labelled rows, of rating models the ratings, each by itself.

Shape letters: U users, B rows of a block, N items, K list length, C categories, T longest history,
E labelled rows or ratings.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from inforec.checks import require_choice, require_number
from inforec.memory import in_blocks
from inforec.metrics import calibration, diversity, pointwise, ranking
from inforec.models.base import ClickModel, DotProduct, Ranker, RatingModel
from inforec.types import PAD, Impressions, Interactions, Query

if TYPE_CHECKING:
    from inforec.data import Dataset

SCORES_HELD = 2**24  # scores held at a time: 64 MB in float32
ROWS_HELD = 2**15  # labelled rows or ratings whose vectors are held at a time
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
    top_UK = torch.full((dataset.num_users, k), PAD, device=dataset.train.user.device)
    for user_B, score_BN in untaken_scores(model, dataset, on):
        top_UK[user_B] = best_items(score_BN, k)
    return top_UK


def best_items(score_BN: Tensor, k: int) -> Tensor:
    """(B, K) int64: the k best items of each row, best first; -1 where only -inf is left."""
    best = score_BN.topk(min(k, score_BN.shape[1]), dim=1)
    listed_BK = torch.where(best.values > -torch.inf, best.indices, PAD)
    return torch.nn.functional.pad(listed_BK, (0, k - listed_BK.shape[1]), value=PAD)


@torch.no_grad()
def untaken_scores(model: Ranker, dataset: Dataset, on: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (user_B, score_BN) in blocks, -inf at the items that a user has taken.

    Arguments and errors are those of :func:`recommend`.
    """
    require_choice("on", on, ("valid", "test"))
    model.eval()
    taken_UT = taken_items(dataset, on)
    for user_B, score_BN in score_blocks(model, dataset.train.history_UT, dataset.num_items):
        extremes = torch.stack(torch.aminmax(score_BN))  # nan shows in both, at 1/20 of the time
        if not bool(extremes.isfinite().all()):
            row, item = (~torch.isfinite(score_BN)).nonzero()[0].tolist()
            raise ValueError(
                f"model {type(model).__name__} scores user index {int(user_B[row])}, item index "
                f"{item} as {float(score_BN[row, item])}: expected a finite score"
            )
        taken_BT = taken_UT[user_B]
        row, place = (taken_BT >= 0).nonzero(as_tuple=True)
        score_BN[row, taken_BT[row, place]] = -torch.inf
        yield user_B, score_BN


def taken_items(dataset: Dataset, on: str) -> Tensor:
    """(U, T) int64: what is never recommended, padded with -1: training, for "test" validation."""
    history_UT = dataset.train.history_UT
    if on == "valid":
        return history_UT
    return torch.cat([history_UT, dataset.valid.history_UT], dim=1)


def score_blocks(
    model: Ranker, history_UT: Tensor, num_items: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (user_B, score_BN) for all users, in blocks that fit in memory."""
    user_U = torch.arange(len(history_UT), device=history_UT.device)
    rows = max(1, SCORES_HELD // num_items)

    def scored(block):
        query = Query(user_U[block], history_UT[block])
        return query.user, model.score(query).clone()

    def embedded(block):
        query = Query(user_U[block], history_UT[block])
        return query.user, *model.embed(query)

    if not isinstance(model, DotProduct):
        yield from in_blocks(scored, len(user_U), rows)
        return
    for user_X, query_XD, item_ND in in_blocks(embedded, len(user_U), USERS_EMBEDDED):

        def multiplied(block, user_X=user_X, query_XD=query_XD, item_ND=item_ND):
            return user_X[block], query_XD[block] @ item_ND.T

        yield from in_blocks(multiplied, len(user_X), rows)


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
    values = user_metrics(top_UK, dataset, ks, on)
    top_XK = _as_lists(top_UK).to(dataset.train.user.device, torch.int64)
    top_XK = top_XK[getattr(dataset, on).user_counts > 0]
    metrics: dict[str, float] = {}
    for k in ks:
        exposure_N = diversity.exposure(top_XK[:, :k], dataset.num_items)
        of_users = {name: _mean(v) for name, v in values.items() if name.endswith(f"@{k}")}
        of_catalogue = {
            f"coverage@{k}": diversity.coverage(exposure_N),
            f"gini@{k}": diversity.gini(exposure_N),
            f"item_entropy@{k}": diversity.item_entropy(exposure_N),
        }
        metrics |= of_users | of_catalogue
    return metrics


def user_metrics(
    top_UK: Tensor | Sequence,
    dataset: Dataset,
    ks: Sequence[int] = (20,),
    on: str = "test",
) -> dict[str, Tensor]:
    """The metrics that have one value a user, (U,) float64 each, by ``name@K``.

    NaN for users without a held-out item in the split ``on``. Arguments and errors are those of
    :func:`evaluate_lists`, whose figures are the means of these.
    """
    require_choice("on", on, ("valid", "test"))
    truth: Interactions = getattr(dataset, on)
    top_UK = _as_lists(top_UK).to(truth.user.device, torch.int64)
    ks = list(ks)
    _check_lists(top_UK, dataset, ks)
    evaluated_X = (truth.user_counts > 0).nonzero()[:, 0]
    top_XK = top_UK[evaluated_X]
    relevant_X = truth.user_counts[evaluated_X]
    hit_XK = _pairs_in(evaluated_X, top_XK, truth)

    values: dict[str, Tensor] = {}
    for k in ks:
        cut_XK = top_XK[:, :k]
        for name, function in RANKING.items():
            values[f"{name}@{k}"] = function(hit_XK[:, :k], relevant_X)
        values[f"novelty@{k}"] = diversity.novelty(cut_XK, dataset.train.item_counts)
        if dataset.category_NC is not None:
            list_XC = diversity.list_categories(cut_XK, dataset.category_NC)
            interest_XC = dataset.interest_UC[evaluated_X]
            values[f"ild@{k}"] = diversity.ild(cut_XK, dataset.category_NC)
            values[f"category_entropy@{k}"] = diversity.category_entropy(list_XC)
            values[f"calibration_kl@{k}"] = calibration.calibration_kl(interest_XC, list_XC)
    nobody_U = top_UK.new_full((len(top_UK),), torch.nan, dtype=torch.float64)
    return {
        name: nobody_U.index_put((evaluated_X,), value.double()) for name, value in values.items()
    }


def evaluate(
    model: Ranker, dataset: Dataset, ks: Sequence[int] = (20,), on: str = "test"
) -> tuple[dict[str, float], Tensor]:
    """Rank all unseen items for every user and measure the lists.

    Returns:
        The metrics of :func:`evaluate_lists`, and the lists themselves (U, max(ks)).
    """
    top_UK = recommend(model, dataset, max(ks), on)
    return evaluate_lists(top_UK, dataset, ks, on), top_UK


@torch.no_grad()
def click_logits(model: ClickModel, impressions: Impressions) -> Tensor:
    """(E,) the model's logit of each row.

    Raises:
        ValueError: if a logit is not finite.
    """
    model.eval()
    blocks = in_blocks(
        lambda block: model(impressions.rows(block)).logits, len(impressions), ROWS_HELD
    )
    logit_E = torch.cat(list(blocks))
    wrong_E = ~logit_E.isfinite()
    if bool(wrong_E.any()):
        row = int(wrong_E.nonzero()[0])
        raise ValueError(
            f"model {type(model).__name__} gives row {row} the logit {float(logit_E[row])}: "
            "expected a finite number"
        )
    return logit_E


def evaluate_clicks(model: ClickModel, impressions: Impressions) -> tuple[dict[str, float], Tensor]:
    """Predict every row and measure the predictions.

    Returns:
        ``auc``, ``gauc`` (within users), ``logloss`` (nats) and ``ece``, NaN where undefined; and
        the logits themselves (E,).
    """
    logit_E = click_logits(model, impressions)
    return click_metrics(logit_E, impressions), logit_E


def click_metrics(logit_E: Tensor, impressions: Impressions) -> dict[str, float]:
    """Metrics of the rows' logits, made here or elsewhere: those of :func:`evaluate_clicks`."""
    label_E, user_E = impressions.label, impressions.user
    return {
        "auc": pointwise.auc(logit_E, label_E),
        "gauc": pointwise.gauc(logit_E, label_E, user_E),
        "logloss": pointwise.logloss(logit_E, label_E),
        "ece": pointwise.ece(logit_E, label_E),
    }


@torch.no_grad()
def evaluate_ratings(model: RatingModel, ratings: Interactions) -> tuple[dict[str, float], Tensor]:
    """Predict every rating by :meth:`RatingModel.rate` and measure the predictions.

    Returns:
        ``rmse`` and ``mae``, in units of the ratings; and the predictions themselves (E,).

    Raises:
        ValueError: if a prediction is not finite.
    """
    model.eval()
    rating_E = torch.empty_like(ratings.rating)
    row_E = ratings.user if model.whole is None else getattr(ratings, model.whole)
    for index in row_E.argsort(stable=True).split(ROWS_HELD):  # each row in few blocks
        rating_E[index] = model.rate(ratings.user[index], ratings.item[index]).to(rating_E.dtype)
    wrong_E = ~rating_E.isfinite()
    if bool(wrong_E.any()):
        at = int(wrong_E.nonzero()[0])
        raise ValueError(
            f"model {type(model).__name__} rates item index {int(ratings.item[at])} for user index "
            f"{int(ratings.user[at])} as {float(rating_E[at])}: expected a finite number"
        )
    return {
        "rmse": pointwise.rmse(rating_E, ratings.rating),
        "mae": pointwise.mae(rating_E, ratings.rating),
    }, rating_E


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
