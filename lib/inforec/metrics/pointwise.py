"""Quality of single predictions: clicks (auc, gauc, logloss, ece) and ratings (rmse, mae).

Click metrics take logits, never probabilities, and say so in the name of the argument.

Shape letters: E predictions, U users, L levels (equal logits of one user).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def auc(logit_E: Tensor, label_E: Tensor) -> float:
    """Probability that a random positive is scored above a random negative, ties counted half.

    NaN if one of the two classes is absent. Computed from mid-ranks (Mann-Whitney).
    """
    positive_E = label_E > 0
    num_positive, num_negative = int(positive_E.sum()), int((~positive_E).sum())
    if num_positive == 0 or num_negative == 0:
        return math.nan
    _, level_E, count_L = logit_E.unique(return_inverse=True, return_counts=True)
    middle_L = count_L.cumsum(0).double() - (count_L - 1) / 2
    rank_sum = float(middle_L[level_E][positive_E].sum())
    return (rank_sum - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative)


def gauc(logit_E: Tensor, label_E: Tensor, user_E: Tensor) -> float:
    """AUC within each user, averaged with the user's number of predictions as weight.

    Zhou et al. (2018), Deep Interest Network. Users with one class only are left out;
    NaN if that leaves nobody.
    """
    order = logit_E.argsort(stable=True)
    order = order[user_E[order].argsort(stable=True)]  # by user, then by logit
    logit_E, positive_E = logit_E[order], (label_E > 0)[order].double()
    user_E, size_U = user_E[order].unique_consecutive(return_inverse=True, return_counts=True)[1:]
    # Mid-ranks within the user: equal logits of one user share the middle of their places.
    starts_E = torch.ones_like(user_E, dtype=torch.bool)
    starts_E[1:] = (user_E[1:] != user_E[:-1]) | (logit_E[1:] != logit_E[:-1])
    level_E = starts_E.cumsum(0) - 1
    count_L = torch.bincount(level_E)
    middle_L = count_L.cumsum(0).double() - (count_L - 1) / 2
    rank_E = middle_L[level_E] - (size_U.cumsum(0) - size_U)[user_E]
    num_U = torch.zeros_like(size_U, dtype=torch.float64)
    positive_U, rank_U = (
        num_U.index_add(0, user_E, value_E) for value_E in (positive_E, rank_E * positive_E)
    )
    pairs_U = positive_U * (size_U - positive_U)
    auc_U = (rank_U - positive_U * (positive_U + 1) / 2) / pairs_U
    kept_U = pairs_U > 0
    weight = float(size_U[kept_U].sum())
    return float((auc_U * size_U)[kept_U].sum()) / weight if weight else math.nan


def logloss(logit_E: Tensor, label_E: Tensor) -> float:
    """Mean negative log-likelihood of the labels, nats."""
    return float(F.binary_cross_entropy_with_logits(logit_E.double(), label_E.double()))


def ece(logit_E: Tensor, label_E: Tensor, *, bins: int = 15) -> float:
    """Expected calibration error: the mean gap of label and probability over equal bins.

    Guo et al. (2017), with the probability of the positive class as the confidence.
    """
    prob_E = logit_E.double().sigmoid()
    bin_E = (prob_E * bins).long().clamp(max=bins - 1)
    gap_E = label_E.double() - prob_E
    gap_sum = torch.zeros(bins, dtype=torch.float64, device=prob_E.device)
    return float(gap_sum.index_add(0, bin_E, gap_E).abs().sum() / len(prob_E))


def rmse(prediction_E: Tensor, rating_E: Tensor) -> float:
    """Root of the mean squared error, in rating units."""
    return float((prediction_E.double() - rating_E.double()).square().mean().sqrt())


def mae(prediction_E: Tensor, rating_E: Tensor) -> float:
    """Mean absolute error, in rating units."""
    return float((prediction_E.double() - rating_E.double()).abs().mean())
