"""The information-theoretic terms: functions of Q_u that return (B,) nats, one value a row.

Weights and means stay outside. All of them need the law over the whole catalogue: over sampled
candidates a softmax is not p(i | u), so an incomplete distribution is refused.

Shape letters: B rows (users), N items, C categories, T items of a padded table.
"""

from __future__ import annotations

import torch
from torch import Tensor

from inforec.distribution import ItemDistribution


def kl(p_BC: Tensor, q_BC: Tensor) -> Tensor:
    """(B,) KL(p || q) in nats along the last axis, with 0 log 0 = 0; inf where q = 0 < p."""
    safe_BC = torch.where(p_BC > 0, q_BC, 1.0)  # where p = 0 = q the gradient is 0, not 0 / 0
    return (torch.special.xlogy(p_BC, p_BC) - p_BC * safe_BC.log()).sum(-1)


def category_kl(distribution: ItemDistribution, interest_BC: Tensor, category_NC: Tensor) -> Tensor:
    """(B,) KL(P_u || Q_u) over categories, nats: how far the law is from the user's interests.

    Args:
        distribution: Q_u over the N items.
        interest_BC: (B, C) P_u, rows sum to 1.
        category_NC: (N, C) p(c | i), rows sum to 1; Q_u(c) = sum_i Q_u(i) p(c | i).
    """
    _require_complete(distribution)
    return kl(interest_BC, distribution.mean(category_NC))


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


def _require_complete(distribution: ItemDistribution) -> None:
    if not distribution.complete:
        raise ValueError(
            f"distribution covers {distribution.num_items} sampled candidates: expected the law "
            "over the whole catalogue, because a softmax over a sample is not p(i | u)"
        )
