"""Quality of single predictions: clicks (auc, gauc, logloss, ece) and ratings (rmse, mae).

Click metrics take logits, never probabilities, and say so in the name of the argument.

Shape letters: E predictions.
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
    total, weight = 0.0, 0
    order = user_E.argsort(stable=True)
    sizes = user_E[order].unique_consecutive(return_counts=True)[1].tolist()
    for logit, label in zip(logit_E[order].split(sizes), label_E[order].split(sizes), strict=True):
        value = auc(logit, label)
        if not math.isnan(value):
            total, weight = total + value * len(logit), weight + len(logit)
    return total / weight if weight else math.nan


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
