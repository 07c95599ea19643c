"""Losses: small pure functions on logits, each a mean over rows or interactions, in nats.

Shape letters: B rows, K negatives or candidates, N items, D embedding size, T positives a row, E
positives of all rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from inforec.checks import require_choice, require_number
from inforec.distribution import ItemDistribution
from inforec.streaming import catalogue_pass, softplus_sum
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
    log_prob = distribution.log_prob if item.ndim == 1 else distribution.log_likelihood
    return -log_prob(item).sum() / (item != PAD).sum()


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


def logistic(query_BD: Tensor, item_ND: Tensor, taken_BT: Tensor) -> Tensor:
    """Logistic loss over whole rows: every item is a coin of its own, with log-odds s_ui.

    The sum over rows and items of -log sigmoid(s_ui) if taken, else -log sigmoid(-s_ui), divided by
    the number of interactions, as the softmax loss is: a row costs what its user's items share.
    With s_ui = query_u . item_i it is sum_i softplus(s_ui) minus the taken scores; the sum is read
    in blocks of items.

    Args:
        query_BD: (B, D) row vectors.
        item_ND: (N, D) item vectors.
        taken_BT: (B, T) the distinct items of each row, padded with -1.
    """
    taken_E = _taken_scores(query_BD, item_ND, taken_BT)
    return (softplus_sum(query_BD, item_ND).sum() - taken_E.sum()) / len(taken_E)


def mse(query_BD: Tensor, item_ND: Tensor, taken_BT: Tensor) -> Tensor:
    """Squared error of whole rows: sum_i (x_ui - s_ui)^2 with x_ui = 1 if taken, else 0.

    Summed over rows and divided by the number of interactions, as the softmax loss is. With
    s_ui = query_u . item_i, sum_i s_ui^2 = q' (sum_i k_i k_i') q: no score of an item that was not
    taken is ever made (Hu, Koren and Volinsky 2008, section 4).

    Args:
        query_BD: (B, D) row vectors.
        item_ND: (N, D) item vectors.
        taken_BT: (B, T) the distinct items of each row, padded with -1.
    """
    taken_E = _taken_scores(query_BD, item_ND, taken_BT)
    squares = ((query_BD @ (item_ND.T @ item_ND)) * query_BD).sum()
    return (squares - 2 * taken_E.sum()) / len(taken_E) + 1


def _taken_scores(query_BD: Tensor, item_ND: Tensor, taken_BT: Tensor) -> Tensor:
    """(E,) the scores of all rows' items."""
    row_E, place_E = (taken_BT != PAD).nonzero(as_tuple=True)
    item_ED = F.embedding(taken_BT[row_E, place_E], item_ND)
    return torch.linalg.vecdot(F.embedding(row_E, query_BD), item_ED)


def sampled_logistic(logits_BK: Tensor) -> Tensor:
    """Logistic loss of a positive and sampled negatives: softplus(-s_0) + sum_k softplus(s_k).

    The mean over the rows. With K negatives drawn evenly from a user's n other items, each stands
    for n / K of them: weighted so, it would be an estimate of :func:`logistic`, whose negatives are
    n / K times as heavy.

    Args:
        logits_BK: (B, 1 + K) logits, the positive in column 0.
    """
    return (F.softplus(-logits_BK[:, 0]) + F.softplus(logits_BK[:, 1:]).sum(1)).mean()


def binary_cross_entropy(logit: Tensor, label: Tensor) -> Tensor:
    """Logistic loss of labels: mean of -log sigmoid(s) where one is 1, -log sigmoid(-s) where 0.

    Args:
        logit: of any shape.
        label: the same shape; a label between 0 and 1 mixes the two.
    """
    return F.binary_cross_entropy_with_logits(logit, label)


def squared_error(prediction_B: Tensor, rating_B: Tensor) -> Tensor:
    """Mean squared error of observed ratings: up to constants the negative log-likelihood of
    Gaussian errors of one variance; what was not rated has no term.

    Args:
        prediction_B: (B,) predicted ratings.
        rating_B: (B,) the ratings.
    """
    return (prediction_B - rating_B).square().mean()


def info_nce(
    query_BD: Tensor,
    key_BD: Tensor,
    temperature: float,
    *,
    cosine: bool = True,
    two_sided: bool = False,
) -> Tensor:
    """InfoNCE between two views of the same B things: the mean over rows of -log softmax, nats.

    van den Oord et al. (2018), equation 4, with the similarity s_bc of x_b and y_c and the batch as
    the sample, l_b = -log exp(s_bb / temperature) / sum_c exp(s_bc / temperature). Two-sided is the
    mean of this and of the same with the two views exchanged: both sides of a pair look for the
    other, as in CLIP (Radford et al. 2021). SimCLR (Chen et al. 2020) has the rows of the own view
    among the negatives as well; here they are not.

    Args:
        query_BD: (B, D) one view.
        key_BD: (B, D) the other view; row b is the positive of row b.
        temperature: divides the similarities.
        cosine: compare unit vectors; otherwise the dot product of the vectors as they are.
        two_sided: average over both views as the one that looks.

    Raises:
        ValueError: if the shapes differ, the batch is empty, or the temperature is not positive.
    """
    _require_views(query_BD, key_BD)
    require_number("temperature", temperature, above=0)
    if cosine:
        query_BD, key_BD = F.normalize(query_BD, dim=1), F.normalize(key_BD, dim=1)
    # Streamed like the catalogue: thousands of rows would otherwise hold (B, B) several times.
    query_BD = query_BD / temperature
    positive = (query_BD * key_BD).sum(1).mean()
    lse_B, *_ = catalogue_pass(query_BD, key_BD)
    if not two_sided:
        return lse_B.mean() - positive
    other_B, *_ = catalogue_pass(key_BD, query_BD)
    return (lse_B.mean() + other_B.mean()) / 2 - positive


def contrastive_margin(query_BD: Tensor, key_BD: Tensor, margin: float) -> Tensor:
    """Pairs together, others a margin apart: mean d_bb^2 + mean over b != c of max(0, m - d_bc)^2.

    Hadsell, Chopra and LeCun (2006), equation 4, with every other pair of the batch as dissimilar.
    The differences: their factor 1/2 is left out, and the two kinds of pairs have a mean each, so
    that their weight does not depend on the batch. A batch of one has no other pair; its second
    mean counts as 0.

    Args:
        query_BD: (B, D) one view, compared by the Euclidean distance d_bc of x_b and y_c.
        key_BD: (B, D) the other view; row b is the positive of row b.
        margin: m, the distance from which a dissimilar pair adds nothing.

    Raises:
        ValueError: if the shapes differ, the batch is empty, or the margin is not positive.
    """
    _require_views(query_BD, key_BD)
    require_number("margin", margin, above=0)
    positive = (query_BD - key_BD).square().sum(1).mean()
    # From the differences, not from norms and products: those lose the small distances. At distance
    # 0 cdist has the gradient 0, a choice among the subgradients.
    distance_BB = torch.cdist(query_BD, key_BD, compute_mode="donot_use_mm_for_euclid_dist")
    return positive + _off_diagonal_mean(F.relu(margin - distance_BB).square())


def f_micl(
    query_BD: Tensor,
    key_BD: Tensor,
    *,
    divergence: str,
    sigma: float,
    negative_weight: float = 1.0,
) -> Tensor:
    """f-mutual information in contrastive learning, negated: -E_pos[s] + w E_neg[f*(s)].

    Lu et al. (2023, arXiv:2402.10150). For a convex f with f(1) = 0 and its conjugate f*, the
    f-mutual information of two views is at least E_pos[s] - E_neg[f*(s)], whatever s; the best s is
    f' of the ratio of the joint density to the product of the marginals. With a Gaussian kernel in
    that place, u = G_sigma(d^2) = exp(-d^2 / (2 sigma^2)) with d the distance of two unit vectors,
    it is the f-Gaussian similarity s = f'(u):

    ====== ============================== ======================= ============= =================
    name   f(u)                           s = f'(u)               f*(t)         f*(s)
    ====== ============================== ======================= ============= =================
    kl     u log u                        1 + log u               e^(t - 1)     u
    chi2   (u - 1)^2                      2 (u - 1)               t + t^2 / 4   u^2 - 1
    js     u log u - (u + 1) log((u+1)/2) log 2 + log(u/(1 + u))  -log(2 - e^t) log((1 + u) / 2)
    ====== ============================== ======================= ============= =================

    (chi2 is Pearson's; js is KL(P || M) + KL(Q || M), M = (P + Q) / 2: twice the Jensen-Shannon
    divergence.) With kl the loss is E_pos[(1 - cos) / tau] - 1 + w E_neg[exp((cos - 1) / tau)] at
    tau = sigma^2. Since log v <= v - 1 it is, at w = 1, an upper bound of InfoNCE's form
    E_pos[-cos / tau] + log E_neg[exp(cos / tau)], and at w = 1 / E_neg[u] it has its gradient.

    Where this differs:

    1. The negatives are the pairs (x_b, y_c) with b != c, which sample the product of the
       marginals; public implementations take pairs (x_b, x_c) of one view. Across views it also
       holds where the two are not exchangeable, such as users and items.
    2. The kernel has no factor in front: it would only rescale the ratio.
    3. f'(u) and f*(f'(u)) are computed from log u, so that no small constant guards a logarithm.

    Args:
        query_BD: (B, D) one view; only its directions count.
        key_BD: (B, D) the other view; row b is the positive of row b.
        divergence: "kl", "chi2" or "js".
        sigma: the width of the kernel.
        negative_weight: w, which public implementations tune as well. A batch of one has no
            negatives; their mean counts as 0.

    Raises:
        ValueError: if the shapes differ, the batch is empty, the divergence is unknown, sigma is
            not positive or the weight is negative.
    """
    _require_views(query_BD, key_BD)
    require_choice("divergence", divergence, _F_GAUSSIAN)
    require_number("sigma", sigma, above=0)
    require_number("negative_weight", negative_weight, at_least=0)
    similarity, conjugate = _F_GAUSSIAN[divergence]
    query_BD, key_BD = F.normalize(query_BD, dim=1), F.normalize(key_BD, dim=1)
    log_kernel_BB = (query_BD @ key_BD.T - 1) / sigma**2  # |x - y|^2 = 2 - 2 cos
    positive = similarity(log_kernel_BB.diagonal()).mean()
    return negative_weight * _off_diagonal_mean(conjugate(log_kernel_BB)) - positive


# From log u to s = f'(u) and to f*(s), with the generators f of f_micl.
_F_GAUSSIAN: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "kl": (lambda log_u: 1 + log_u, torch.exp),
    "chi2": (lambda log_u: 2 * torch.expm1(log_u), lambda log_u: torch.expm1(2 * log_u)),
    "js": (
        lambda log_u: math.log(2) + F.logsigmoid(log_u),
        lambda log_u: F.softplus(log_u) - math.log(2),
    ),
}


def _off_diagonal_mean(value_BB: Tensor) -> Tensor:
    """The mean over the pairs b != c; 0 if there are none."""
    num_rows = len(value_BB)
    hidden_BB = torch.eye(num_rows, dtype=torch.bool, device=value_BB.device)
    return value_BB.masked_fill(hidden_BB, 0.0).sum() / max(1, num_rows * (num_rows - 1))


def _require_views(query_BD: Tensor, key_BD: Tensor) -> None:
    if query_BD.ndim != 2 or key_BD.shape != query_BD.shape or len(query_BD) == 0:
        raise ValueError(
            f"query_BD has the shape {tuple(query_BD.shape)} and key_BD {tuple(key_BD.shape)}: "
            "expected (B, D) twice, with at least one row"
        )
