"""The information-theoretic terms: of the law Q_u, (B,) nats a row, and of the vectors behind it.

Weights and means stay outside. The terms of Q_u need the law over the whole catalogue: over sampled
candidates a softmax is not p(i | u), so an incomplete distribution is refused. The terms of the
vectors (alignment, uniformity, the rate of a Gaussian code) need no law.

Shape letters: B rows (users), N items, D embedding size, C categories, T items of a padded table.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from inforec.checks import require_number
from inforec.distribution import ItemDistribution


def kl(p_BC: Tensor, q_BC: Tensor) -> Tensor:
    """(B,) KL(p || q) in nats along the last axis, with 0 log 0 = 0; inf where q = 0 < p."""
    safe_BC = torch.where(p_BC > 0, q_BC, 1.0)  # where p = 0 = q the gradient is 0, not 0 / 0
    return (torch.special.xlogy(p_BC, p_BC) - p_BC * safe_BC.log()).sum(-1)


def category_kl(
    distribution: ItemDistribution,
    interest_BC: Tensor,
    category_NC: Tensor,
    *,
    smoothing: float = 0.0,
) -> Tensor:
    """(B,) KL(P_u || Q_u) over categories, nats: how far the law is from the user's interests.

    Args:
        distribution: Q_u over the N items.
        interest_BC: (B, C) P_u, rows sum to 1.
        category_NC: (N, C) p(c | i), rows sum to 1; Q_u(c) = sum_i Q_u(i) p(c | i).
        smoothing: the share of P_u that is mixed into Q_u, as in the metric calibration_kl: finite
            also where a user has no item of a category left.
    """
    _require_complete(distribution)
    law_BC = distribution.mean(category_NC)
    return kl(interest_BC, (1 - smoothing) * law_BC + smoothing * interest_BC)


def item_kl(distribution: ItemDistribution, item_BT: Tensor, weight_BT: Tensor) -> Tensor:
    """(B,) KL(P_u || Q_u) over items, nats, with P_u given on its support.

    Up to the constant -H(P_u) this is the softmax loss with soft labels P_u.

    Args:
        distribution: Q_u over the N items.
        item_BT: (B, T) distinct items of P_u's support, padded with -1.
        weight_BT: (B, T) P_u of those items, 0 at the padding; rows sum to 1.
    """
    _require_complete(distribution)
    log_prob_BT = distribution.log_prob(item_BT)
    return (torch.special.xlogy(weight_BT, weight_BT) - weight_BT * log_prob_BT).sum(1)


def entropy(distribution: ItemDistribution) -> Tensor:
    """(B,) H(Q_u) over items, nats."""
    _require_complete(distribution)
    return distribution.entropy()


def category_entropy(distribution: ItemDistribution, category_NC: Tensor) -> Tensor:
    """(B,) H of Q_u over categories, nats.

    Args:
        distribution: Q_u over the N items.
        category_NC: (N, C) p(c | i), rows sum to 1.
    """
    _require_complete(distribution)
    law_BC = distribution.mean(category_NC)
    safe_BC = torch.where(law_BC > 0, law_BC, 1.0)  # a category that underflows has no gradient
    return -(law_BC * safe_BC.log()).sum(1)


def bidirectional_kl(first: ItemDistribution, second: ItemDistribution) -> Tensor:
    """(B,) (KL(Q1 || Q2) + KL(Q2 || Q1)) / 2 over items, nats: two views of a user should agree.

    Blin (Bai, Wang and He 2024, Mathematics 12(15):2391, section 3.5) adds a bidirectional KL
    between the laws of two differently padded sequences of a user. Here it has the form of R-Drop
    (Liang et al. 2021), the mean of the two directions, between any two laws over the same items.
    It is not bounded, unlike the Jensen-Shannon divergence.

    KL(Q1 || Q2) = lse2 - lse1 + E_Q1[s1 - s2] with s the scores over the temperature; in the sum of
    both directions the log-sum-exps cancel, and (E_Q1[s1 - s2] + E_Q2[s2 - s1]) / 2 is left. Two
    laws from embeddings need one pass each over the catalogue, never a (B, N) matrix.

    Args:
        first: Q1 over the N items.
        second: Q2 over the same items, built in the same way, with the same items excluded.

    Raises:
        ValueError: if the laws differ in rows, items, excluded items (a KL would be infinite) or in
            what they were built from, or cover only sampled candidates.
    """
    _require_complete(first)
    _require_complete(second)
    own_first_B, cross_first_B = first.mean_scores(first, second).unbind(1)
    cross_second_B, own_second_B = second.mean_scores(first, second).unbind(1)
    if not first.same_support(second):
        raise ValueError(
            "first and second exclude different items: expected the same, because the KL from a "
            "law to one that lacks some of its items is infinite"
        )
    return ((own_first_B - cross_first_B) + (own_second_B - cross_second_B)) / 2


def gaussian_rate(mean_BD: Tensor, log_variance_BD: Tensor) -> Tensor:
    """(B,) KL(N(m, diag s^2) || N(0, I)) in nats: the rate of a Gaussian code.

    sum_d (m_d^2 + s_d^2 - 1 - log s_d^2) / 2 (Kingma and Welling 2014, appendix B). Its mean over
    the users bounds the information that their codes hold from above: the rate of the variational
    information bottleneck (Alemi et al. 2017, equation 17).

    Args:
        mean_BD: (B, D) m.
        log_variance_BD: (B, D) log s^2.

    Raises:
        ValueError: if the shapes differ.
    """
    _require_same_shape(mean_BD=mean_BD, log_variance_BD=log_variance_BD)
    # expm1 keeps the digits near s = 1, where e^v - 1 - v vanishes.
    return (mean_BD.square() + torch.expm1(log_variance_BD) - log_variance_BD).sum(1) / 2


def alignment(query_BD: Tensor, key_BD: Tensor) -> Tensor:
    """(B,) squared distance of two unit vectors, 2 - 2 cos(x, y): from 0 to 4.

    The alignment loss of Wang and Isola (2020) with the power 2, before the mean.

    Args:
        query_BD: (B, D) one side of the pairs; only its directions count.
        key_BD: (B, D) the other side.

    Raises:
        ValueError: if the shapes differ.
    """
    _require_same_shape(query_BD=query_BD, key_BD=key_BD)
    return (F.normalize(query_BD, dim=1) - F.normalize(key_BD, dim=1)).square().sum(1)


def uniformity(x_BD: Tensor, t: float = 2.0, count_B: Tensor | None = None) -> Tensor:
    """log of the mean over pairs of exp(-t d^2), d the distance of unit vectors: from -4t to 0.

    The uniformity loss of Wang and Isola (2020); lower is more evenly spread over the sphere. A
    batch of one has no pairs; its value is 0, as if it met itself.

    Args:
        x_BD: (B, D) vectors; only their directions count.
        t: how local the term is: the inverse squared width of the kernel.
        count_B: (B,) how often each row occurs, by default once. The value is that of the batch
            with every row written out, and the cost that of its distinct rows.

    Raises:
        ValueError: if ``x_BD`` has no rows or is not a matrix, or t is not positive.
    """
    if x_BD.ndim != 2 or len(x_BD) == 0:
        raise ValueError(
            f"x_BD has the shape {tuple(x_BD.shape)}: expected (B, D), with at least one row"
        )
    require_number("t", t, above=0)
    count_B = x_BD.new_ones(len(x_BD)) if count_B is None else count_B.to(x_BD.dtype)
    total = count_B.sum()
    if len(x_BD) == 1:
        return 0.0 * x_BD.sum()
    x_BD = F.normalize(x_BD, dim=1)
    log_kernel_BB = 2 * t * (x_BD @ x_BD.T - 1)  # |x - y|^2 = 2 - 2 cos
    # Pairs of different rows, and of the copies of one row, which lie at distance 0.
    pairs_BB = count_B[:, None] * count_B - torch.diag(count_B)
    log_kernel_BB = log_kernel_BB + pairs_BB.log()
    return log_kernel_BB.flatten().logsumexp(0) - (total * (total - 1)).log()


def _require_same_shape(**tensors: Tensor) -> None:
    (left, left_BD), (right, right_BD) = tensors.items()
    if left_BD.ndim != 2 or left_BD.shape != right_BD.shape:
        raise ValueError(
            f"{left} has the shape {tuple(left_BD.shape)} and {right} {tuple(right_BD.shape)}: "
            "expected (B, D) twice"
        )


def _require_complete(distribution: ItemDistribution) -> None:
    if not distribution.complete:
        raise ValueError(
            f"distribution covers {distribution.num_items} sampled candidates: expected the law "
            "over the whole catalogue, because a softmax over a sample is not p(i | u)"
        )
