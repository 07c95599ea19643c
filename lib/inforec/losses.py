"""Ranking losses: small pure functions on logits, each a mean over the rows, in nats.

Shape letters: B rows, K negatives or candidates, D embedding size, T positives a row.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from inforec.distribution import ItemDistribution
from inforec.types import PAD


def bpr(positive_B: Tensor, negative_BK: Tensor) -> Tensor:
    """Bayesian personalised ranking: mean of -log sigmoid(s_pos - s_neg).

    Rendle et al. (2009), BPR-Opt without its prior on the parameters.

    Args:
        positive_B: (B,) logits of the positives.
        negative_BK: (B, K) logits of K negatives for each.
    """
    return F.softplus(negative_BK - positive_B[:, None]).mean()


def softmax(distribution: ItemDistribution, item: Tensor) -> Tensor:
    """Softmax loss over the whole catalogue: mean of -log Q_u(i+) over the interactions.

    Args:
        distribution: Q_u for B rows.
        item: (B,) one positive a row, or (B, T) all of a row's positives, padded with -1.

    Raises:
        ValueError: if the distribution covers only sampled candidates; use
            :func:`sampled_softmax` there.
    """
    if not distribution.complete:
        raise ValueError(
            f"distribution covers {distribution.num_items} sampled candidates: expected the whole "
            "catalogue (sampled_softmax corrects for sampling)"
        )
    return -distribution.log_prob(item).sum() / (item != PAD).sum()


def sampled_softmax(logits_BK: Tensor, log_q_BK: Tensor, temperature: float = 1.0) -> Tensor:
    """Softmax loss over candidates drawn with known probabilities; column 0 is the positive.

    Each negative's logit is lowered by the log of its expected count among the K - 1 draws: the
    log-q correction of Bengio and Senecal (2008). The positive stands for itself and is not
    corrected, so a draw that hits it must not count again: its log_q is +inf. Then the sum over the
    candidates estimates the sum over the catalogue without bias.

    Args:
        logits_BK: (B, K) logits, the positive in column 0.
        log_q_BK: (B, K) log-probability of drawing each candidate, nats, +inf for a draw that does
            not count; column 0 is not read.
        temperature: divides the logits before the correction.
    """
    num_draws = logits_BK.shape[1] - 1
    scaled_BK = logits_BK / temperature
    log_count_BK = log_q_BK[:, 1:] + math.log(num_draws)
    corrected_BK = torch.cat([scaled_BK[:, :1], scaled_BK[:, 1:] - log_count_BK], dim=1)
    return -corrected_BK.log_softmax(1)[:, 0].mean()


def info_nce(query_BD: Tensor, key_BD: Tensor, temperature: float) -> Tensor:
    """InfoNCE between two views of the same B things, cosine similarity, other rows as negatives.

    van den Oord et al. (2018), equation 4, with the in-batch negatives of one side.

    Args:
        query_BD: (B, D) one view.
        key_BD: (B, D) the other view; row b is the positive of row b.
        temperature: divides the cosines.
    """
    query_BD, key_BD = F.normalize(query_BD, dim=1), F.normalize(key_BD, dim=1)
    logits_BB = query_BD @ key_BD.T / temperature
    return F.cross_entropy(logits_BB, torch.arange(len(query_BD), device=query_BD.device))
