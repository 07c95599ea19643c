"""Decision-time calibration: choose the list after the scores are known.

Three greedy searches build a list item by item: :func:`steck` for a set in which every score counts
the same, :func:`expected_ndcg` for one whose relevance counts by its place, and
:func:`decaying_attention` for an order whose later places weigh less in its law too. :func:`tilt`
solves for the best *law* instead, exactly: every score moves by the multipliers of its item's
categories, and the list is the top of the moved scores. :func:`tilted` is the same solution as a
differentiable layer for training.

Shape letters: B users, N items, M candidates, C categories, K list length, T excluded items a user,
G kinds of item (items with one and the same row of categories are one kind), R rows still at work.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from inforec.checks import require_choice, require_number
from inforec.distribution import ItemDistribution
from inforec.metrics.calibration import SMOOTHING
from inforec.streaming import excluded_mask
from inforec.types import PAD

BLOCK_ELEMENTS = 2**18  # of a greedy block: 1 MB in float32 stays in the processor's cache
TILT_ELEMENTS = 2**20  # of a block of tilt, in float64

MAX_STEPS = 200  # Newton steps at one temperature; a law from a softmax needs about ten
HOT_RANGE = 200.0  # range of log mass above which tilt starts at a higher temperature
COOLING = 4.0  # factor between two temperatures on the way down
ROUGH = 1e-2  # tolerance on the way down
MAX_HALVINGS = 60
SUFFICIENT = 1e-4  # Armijo: the fraction of the predicted fall that a step must keep
SLACK = 1e-13  # relative rounding of the dual's value, below which a fall cannot be seen


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
    place_BK = _greedy(
        lambda rows, taken_BM: score_BM[rows],
        item_BM,
        interest_BC,
        category_NC,
        range(1, k + 1),
        [1.0] * k,
        trade_off,
        _log_overlap,
    )
    if sort_by_score:
        order_BK = score_BM.gather(1, place_BK).argsort(dim=1, descending=True, stable=True)
        place_BK = place_BK.gather(1, order_BK)
    return item_BM.gather(1, place_BK)


def expected_ndcg(
    relevance_BM: Tensor,
    item_BM: Tensor,
    interest_BC: Tensor,
    category_NC: Tensor,
    *,
    k: int,
    trade_off: float,
) -> Tensor:
    """Greedy calibrated lists whose places count as they do in NDCG.

    A list shows its items in descending relevance, i_1 first. K times, add the item that raises

        value(I) = (1 - trade_off) sum_j relevance(i_j) / log2(j + 1) - trade_off KL(p || q~(I)),
        q~(I) = (0.99 sum over I of p(c | i) + 0.01 k p) / k,

    most. With the relevance of an item as its share of the user's expected NDCG, the sum is the
    expected NDCG of the list. At full length q~ is that of :func:`steck`; before, the prior has the
    weight that it will have in the end. So, for relevance that is not negative, the value is a
    monotone submodular function of the set and greedy closes at least 1 - 1/e of the way from the
    empty list to the best one (Nemhauser, Wolsey and Fisher 1978).

    The value is :func:`steck`'s with the discounted gain of Järvelin and Kekäläinen (2002) in place
    of the sum of scores: an item that would end at the foot of the list is cheap to exchange.

    Args:
        relevance_BM: (B, M) relevance of the candidates; its scale matters against the divergence.
        item_BM: (B, M) int64 candidate items.
        interest_BC: (B, C) p(c | u).
        category_NC: (N, C) p(c | i).
        k: list length, at most M.
        trade_off: from 0 (relevance only) to 1 (calibration only).

    Returns:
        (B, k) int64 items in descending relevance.

    Raises:
        ValueError: for k or trade_off out of range.
    """
    require_number("k", k, at_least=1, at_most=item_BM.shape[1], integer=True)
    require_number("trade_off", trade_off, at_least=0, at_most=1)
    relevance_BM, order_BM = relevance_BM.sort(dim=1, descending=True, stable=True)
    item_BM = item_BM.gather(1, order_BM)
    rank_K = torch.arange(2, k + 3, dtype=relevance_BM.dtype, device=item_BM.device)
    discount_K = 1 / rank_K.log2()

    def gain(rows: slice, taken_BM: Tensor) -> Tensor:
        """The item's own gain at its place, less what those below it lose by moving down one."""
        above_BM = taken_BM.cumsum(1) - taken_BM.long()
        at_BM, below_BM = discount_K[above_BM], discount_K[(above_BM + 1).clamp(max=k)]
        loss_BM = taken_BM * relevance_BM[rows] * (at_BM - below_BM)
        return relevance_BM[rows] * at_BM - loss_BM.flip(1).cumsum(1).flip(1)

    place_BK = _greedy(
        gain,
        item_BM,
        interest_BC,
        category_NC,
        [k] * k,
        [1.0] * k,
        trade_off,
        _log_overlap,
    )
    return item_BM.gather(1, place_BK.sort(dim=1).values)


def decaying_attention(
    score_BM: Tensor,
    item_BM: Tensor,
    interest_BC: Tensor,
    category_NC: Tensor,
    *,
    k: int,
    trade_off: float,
    decay: float | Tensor,
    overlap: str = "hellinger",
) -> Tensor:
    """Greedy calibrated lists for users whose attention decays down the list.

    Place j has weight w_j, w_1 >= w_2 >= ..., sum 1, and the list i_1 ... i_k has the law
    q(c) = sum_j w_j p(c | i_j). Place after place, the item is added that raises most

        (1 - trade_off) sum_j w_j score(i_j) + trade_off G(p, q),

    where G is an overlap: at least 0, increasing and concave in q, defined also while the list is
    short (q sums to less than 1), and largest, 1, at q = p:

        hellinger        sum_c sqrt(p_c q_c)            = 1 - squared Hellinger distance
        triangular       sum_c 2 p_c q_c / (p_c + q_c)  = 1 - half the triangular discrimination
        total_variation  sum_c min(p_c, q_c)            = 1 - total variation

    The equalities hold once q sums to 1. Each is sum_c p_c f(q_c / p_c) with f concave and
    f(0) = 0: 1 minus a bounded f-divergence.

    Kleinberg, Ryu and Tardos (2023), "Calibrated recommendations for users with decaying
    attention", arXiv:2302.03239. Their greedy algorithm, this one at trade_off = 1, keeps at least
    2/3 of the best overlap where every item has one category. It is for the Hellinger overlap and
    its like, and has to be free to repeat a category: give it k candidates of each. The tests try
    the bound for all three. Their 1 - 1/e for items of several categories is another algorithm's.

    Args:
        score_BM: (B, M) scores of the candidates; their scale matters against the overlap.
        item_BM: (B, M) int64 candidate items.
        interest_BC: (B, C) p(c | u).
        category_NC: (N, C) p(c | i).
        k: list length, at most M.
        trade_off: from 0 (scores only) to 1 (calibration only).
        decay: a ratio in (0, 1], for w_j proportional to decay^(j - 1); or the (k,) weights
            themselves, positive and never increasing, divided here by their sum.
        overlap: "hellinger", "triangular" or "total_variation".

    Returns:
        (B, k) int64 items in the order of choice: the order is what is calibrated.

    Raises:
        ValueError: for k, trade_off, decay or overlap out of range.
    """
    require_number("k", k, at_least=1, at_most=item_BM.shape[1], integer=True)
    require_number("trade_off", trade_off, at_least=0, at_most=1)
    require_choice("overlap", overlap, OVERLAPS)
    place_BK = _greedy(
        lambda rows, taken_BM: score_BM[rows],
        item_BM,
        interest_BC,
        category_NC,
        [0] * k,
        attention(k, decay),
        trade_off,
        OVERLAPS[overlap],
    )
    return item_BM.gather(1, place_BK)


def attention(k: int, decay: float | Tensor) -> list[float]:
    """The k weights of :func:`decaying_attention`: never increasing, positive, sum 1.

    Raises:
        ValueError: for a ratio outside (0, 1], or weights that are not such.
    """
    if not isinstance(decay, Tensor):
        require_number("decay", decay, above=0, at_most=1)
        weight_K = float(decay) ** torch.arange(k, dtype=torch.float64)
    else:
        weight_K = decay.double()
        sound = weight_K.shape == (k,) and bool((weight_K > 0).all() & weight_K.isfinite().all())
        if not (sound and bool((weight_K[1:] <= weight_K[:-1]).all())):
            raise ValueError(f"decay={decay!r}: expected {k} positive, never increasing weights")
    return (weight_K / weight_K.sum()).tolist()


def _prior(interest_BC: Tensor) -> Tensor:
    """(B, C) what an item adds to its list's law besides p(c | i), because q~ mixes in p.

    For lists of one size n, -KL(p || q~) is sum_c p_c log(sum over I of p(c|i) + n prior_c) plus a
    constant. A category without interest has weight 0: any prior keeps its logarithm finite.
    """
    return torch.where(interest_BC > 0, SMOOTHING / (1 - SMOOTHING) * interest_BC, 1.0)


def _log_overlap(interest_BC: Tensor, mass_BCM: Tensor) -> Tensor:
    return (interest_BC[:, None] @ mass_BCM.log_())[:, 0]


def _hellinger(interest_BC: Tensor, mass_BCM: Tensor) -> Tensor:
    return (interest_BC.sqrt()[:, None] @ mass_BCM.sqrt_())[:, 0]


def _triangular(interest_BC: Tensor, mass_BCM: Tensor) -> Tensor:
    sum_BCM = interest_BC[:, :, None] + mass_BCM
    sum_BCM.masked_fill_(sum_BCM == 0, 1.0)
    return (2 * interest_BC[:, None] @ mass_BCM.div_(sum_BCM))[:, 0]


def _total_variation(interest_BC: Tensor, mass_BCM: Tensor) -> Tensor:
    return torch.minimum(interest_BC[:, :, None], mass_BCM).sum(1)


OVERLAPS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "hellinger": _hellinger,
    "triangular": _triangular,
    "total_variation": _total_variation,
}


def _greedy(
    gain: Callable[[slice, Tensor], Tensor],
    item_BM: Tensor,
    interest_BC: Tensor,
    category_NC: Tensor,
    sizes: Sequence[int],
    weights: Sequence[float],
    trade_off: float,
    overlap: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """(B, K) places: for each weight the free candidate with the largest value is taken.

    Its value is (1 - trade_off) w gain + trade_off overlap(p, mass), with mass_c = sum over the
    list of w p(c | i), plus the prior of a list of this step's size. ``gain`` gets a block of rows
    and what they have taken; ``overlap`` may overwrite mass.
    """
    num_rows, num_candidates = item_BM.shape
    dtype = torch.result_type(interest_BC, category_NC)
    place_BK = torch.empty(num_rows, len(weights), dtype=torch.int64, device=item_BM.device)
    rows = max(1, BLOCK_ELEMENTS // (num_candidates * max(1, category_NC.shape[1])))
    for start in range(0, num_rows, rows):
        block = slice(start, start + rows)
        law_BC = interest_BC[block].to(dtype)
        prior_BC = _prior(law_BC)
        # Candidates last: the widest axis is the one that runs through memory.
        category_BCM = category_NC[item_BM[block]].to(dtype).transpose(1, 2).contiguous()
        taken_BM = torch.zeros(category_BCM.shape[::2], dtype=torch.bool, device=item_BM.device)
        mass_BCM = torch.empty_like(category_BCM)
        sum_BC = torch.zeros_like(law_BC)
        row_B = torch.arange(len(taken_BM), device=item_BM.device)
        for step, (weight, size) in enumerate(zip(weights, sizes, strict=True)):
            base_BC = sum_BC + size * prior_BC
            torch.add(base_BC[:, :, None], category_BCM, alpha=weight, out=mass_BCM)
            value_BM = (1 - trade_off) * weight * gain(block, taken_BM)
            value_BM = value_BM + trade_off * overlap(law_BC, mass_BCM)
            place_B = value_BM.masked_fill_(taken_BM, -torch.inf).argmax(1)
            taken_BM[row_B, place_B] = True
            sum_BC = sum_BC + weight * category_BCM[row_B, :, place_B]
            place_BK[block, step] = place_B
    return place_BK


@dataclass(frozen=True)
class Tilt:
    """What :func:`tilt` found.

    Attributes:
        score_BN: (B, N) s + A lambda, -inf for items that a user must not get.
        multiplier_BC: (B, C) lambda, in units of the scores; 0 where a category has no say.
        steps_B: (B,) int64 Newton steps that each user took.
    """

    score_BN: Tensor
    multiplier_BC: Tensor
    steps_B: Tensor

    def top(self, k: int) -> Tensor:
        """(B, k) int64 items of highest tilted score, best first; -1 where a user has fewer.

        Raises:
            ValueError: for k below 1 or above N.
        """
        require_number("k", k, at_least=1, at_most=self.score_BN.shape[1], integer=True)
        best = self.score_BN.topk(k, dim=1)
        return torch.where(best.values > -torch.inf, best.indices, PAD)


@torch.no_grad()
def tilt(
    score_BN: Tensor,
    interest_BC: Tensor,
    category_NC: Tensor,
    *,
    alpha: float,
    temperature: float | Tensor,
    exclude_BT: Tensor | None = None,
    tolerance: float = 1e-6,
) -> Tilt:
    """The law of highest score, entropy and calibration together, exactly, for every user:

        max over Q of  <Q, s> + temperature H(Q) - alpha KL(p || A^T Q).

    Its solution is an exponential tilt of the softmax, with one multiplier a category:

        Q ~ exp((s + A lambda) / temperature),   lambda_c q_c = alpha p_c,   q = A^T Q.

    In theta = log lambda, the dual

        temperature LSE((s + A lambda) / temperature) - alpha <p, theta>

    is convex. Its gradient is lambda q - alpha p, its Hessian diag(lambda q) + Lambda Cov_Q(A)
    Lambda / temperature. Newton's method with Armijo's line search solves it for all users, each
    until it has converged. Two facts make that cheap: the dual sees an item by its score and its
    row of A only, so items that share a row are summed once, before the first step; and with
    max(lambda q, alpha p) for lambda q on the diagonal, which is the same at the solution, a
    category that the law hardly knows yet does not blow up the step.

    A category enters only if p_c > 0 and some item that the user may get has it. The others have
    lambda_c = 0, and nothing is renormalised: KL then runs over the categories that enter.
    The dual is solved in float64 whatever the scores are.

    Args:
        score_BN: (B, N) scores; an item with score -inf is excluded.
        interest_BC: (B, C) p(c | u).
        category_NC: (N, C) p(c | i), not negative.
        alpha: weight of the divergence, in units of the scores; 0 tilts nothing.
        temperature: a positive number or a (B,) tensor.
        exclude_BT: (B, T) int64 items that get probability 0, padded with -1.
        tolerance: largest error, over the categories, of lambda_c q_c / alpha against p_c.

    Returns:
        :class:`Tilt`; ``tilt(...).top(k)`` is the list.

    Raises:
        ValueError: for bad arguments, a user without an item to get, or a user for whom the
            tolerance is not reached in float64 (a temperature very far below the scores' range).
    """
    _check(interest_BC, category_NC, alpha, tolerance, score_BN.shape)
    temperature_B = _temperature(temperature, score_BN)
    if bool((score_BN.isnan() | (score_BN == torch.inf)).any()):
        raise ValueError("score_BN holds nan or inf: expected finite scores, or -inf to exclude")
    excluded_BN = excluded_mask(exclude_BT, score_BN)
    if excluded_BN is not None:
        score_BN = score_BN.masked_fill(excluded_BN, -torch.inf)
    kinds = torch.unique(category_NC, dim=0, return_inverse=True)
    multiplier_BC = score_BN.new_empty(interest_BC.shape)
    steps_B = torch.empty(len(score_BN), dtype=torch.int64, device=score_BN.device)
    for block in _user_blocks(score_BN.shape, kinds[0]):
        dual = _Dual.of(score_BN[block], interest_BC[block], kinds, alpha, temperature_B[block])
        theta_BC, steps_B[block] = dual.solve(tolerance)
        multiplier_BC[block] = dual.multiplier(theta_BC).to(score_BN.dtype)
    tilted_BN = torch.addmm(score_BN, multiplier_BC, category_NC.T.to(score_BN.dtype))
    return Tilt(tilted_BN, multiplier_BC, steps_B)


def tilted(
    distribution: ItemDistribution,
    interest_BC: Tensor,
    category_NC: Tensor,
    *,
    alpha: float,
    tolerance: float = 1e-6,
) -> ItemDistribution:
    """:func:`tilt` as a layer: Q_u tilted towards p, differentiable in all that Q_u is made from.

    The model learns relevance while the layer carries the calibration. The multipliers are solved
    for without gradient; one Newton step at the solution, whose Hessian is held constant, then has
    the gradient of the multipliers in the scores, the temperature and p (implicit function
    theorem). A law from embeddings stays one: its vectors are [q, lambda] and [k, A], so what is
    asked of the result streams over the catalogue as before. Only the solver holds scores, for a
    block of users at a time.

    Args:
        distribution: Q_u over the whole catalogue; its temperature is that of :func:`tilt`.
        interest_BC: (B, C) p(c | u).
        category_NC: (N, C) p(c | i), not negative; it gets no gradient.
        alpha: weight of the divergence, in units of the scores; 0 tilts nothing.
        tolerance: as in :func:`tilt`.

    Returns:
        The tilted law, at the same temperature and with the same items excluded.

    Raises:
        ValueError: as :func:`tilt`, and for a law over sampled candidates.
    """
    if not distribution.complete:
        raise ValueError(
            f"distribution covers {distribution.num_items} sampled candidates: expected the law "
            "over the whole catalogue, because a softmax over a sample is not p(i | u)"
        )
    shape = torch.Size((distribution.num_rows, distribution.num_items))
    _check(interest_BC, category_NC, alpha, tolerance, shape)
    category_NC = category_NC.detach().to(distribution.dtype)
    with torch.no_grad():
        temperature_B = _temperature(distribution.temperature, interest_BC)
        kinds = torch.unique(category_NC, dim=0, return_inverse=True)
        solved, factors, scales = [], [], []
        for block in _user_blocks(shape, kinds[0]):
            score_BN = distribution.scores(block)
            dual = _Dual.of(score_BN, interest_BC[block], kinds, alpha, temperature_B[block])
            theta_BC, _ = dual.solve(tolerance)
            solved.append(dual.multiplier(theta_BC).to(distribution.dtype))
            factor_BCC, scale_BC = dual.hessian(theta_BC, dual.law(theta_BC)[0])
            factors.append(factor_BCC)
            scales.append(scale_BC)
        solved_BC = torch.cat(solved)
    law_BC = distribution.plus(solved_BC, category_NC).mean(category_NC)
    excess_BC = torch.where(solved_BC > 0, solved_BC * law_BC - alpha * interest_BC, 0.0)
    step_BC = _newton_step(torch.cat(factors), torch.cat(scales), excess_BC.double())
    multiplier_BC = solved_BC * step_BC.exp().to(distribution.dtype)
    return distribution.plus(multiplier_BC, category_NC)


@dataclass(frozen=True)
class _Dual:
    """The duals of a block of users, in float64.

    Attributes:
        log_mass_RG: (R, G) log of the sum of exp(s / temperature) over the items of each kind.
        kind_GC: (G, C) the categories of each kind of item.
        goal_RC: (R, C) alpha p_c, 0 for categories that do not enter.
        alpha: the weight, to measure errors by.
        temperature_R: (R,).
    """

    log_mass_RG: Tensor
    kind_GC: Tensor
    goal_RC: Tensor
    alpha: float
    temperature_R: Tensor

    @classmethod
    def of(
        cls,
        score_RN: Tensor,
        interest_RC: Tensor,
        kinds: tuple[Tensor, Tensor],
        alpha: float,
        temperature_R: Tensor,
    ) -> _Dual:
        kind_GC, kind_N = kinds
        scaled_RN = score_RN.double() / temperature_R[:, None]
        kind_RN = kind_N.expand(scaled_RN.shape)
        log_mass_RG = scaled_RN.new_full((len(scaled_RN), len(kind_GC)), -torch.inf)
        log_mass_RG.scatter_reduce_(1, kind_RN, scaled_RN, "amax")
        best_RG = log_mass_RG.clamp(min=torch.finfo(torch.float64).min)  # finite, or inf - inf
        mass_RG = torch.zeros_like(log_mass_RG)
        mass_RG.scatter_add_(1, kind_RN, (scaled_RN - best_RG.gather(1, kind_RN)).exp())
        log_mass_RG = best_RG + mass_RG.log()
        available_RG = log_mass_RG > -torch.inf
        if not bool(available_RG.any(1).all()):
            raise ValueError(
                "exclude_BT leaves a user no item: expected at least one item for every user"
            )
        reachable_RC = available_RG.double() @ (kind_GC > 0).double() > 0
        goal_RC = torch.where(reachable_RC, alpha * interest_RC.double(), 0.0)
        return cls(log_mass_RG, kind_GC.double(), goal_RC, alpha, temperature_R)

    def rows(self, row_R: Tensor) -> _Dual:
        return _Dual(
            self.log_mass_RG[row_R],
            self.kind_GC,
            self.goal_RC[row_R],
            self.alpha,
            self.temperature_R[row_R],
        )

    def heated(self, heat_R: Tensor) -> _Dual:
        """The same kinds of item at a higher temperature: an easier problem near this one."""
        return _Dual(
            self.log_mass_RG / heat_R[:, None],
            self.kind_GC,
            self.goal_RC,
            self.alpha,
            self.temperature_R * heat_R,
        )

    def multiplier(self, theta_RC: Tensor) -> Tensor:
        return torch.where(self.goal_RC > 0, theta_RC.exp(), 0.0)

    def law(self, theta_RC: Tensor) -> tuple[Tensor, Tensor]:
        """(R, G) Q of the kinds, and the (R,) value of the dual."""
        scaled_RC = self.multiplier(theta_RC) / self.temperature_R[:, None]
        logit_RG = torch.addmm(self.log_mass_RG, scaled_RC, self.kind_GC.T)
        largest_R1 = logit_RG.amax(1, keepdim=True)
        prob_RG = logit_RG.sub_(largest_R1).exp_()
        sum_R1 = prob_RG.sum(1, keepdim=True)
        lse_R = (largest_R1 + sum_R1.log())[:, 0]
        value_R = self.temperature_R * lse_R - (self.goal_RC * theta_RC).sum(1)
        return prob_RG.div_(sum_R1), value_R

    def hessian(self, theta_RC: Tensor, prob_RG: Tensor) -> tuple[Tensor, Tensor]:
        """Cholesky factor (R, C, C) and scale (R, C): the Hessian is scale factor factor^T scale.

        On its diagonal stands max(lambda q, alpha p) for lambda q; where no category enters, 1.
        """
        law_RC = prob_RG @ self.kind_GC
        multiplier_RC = self.multiplier(theta_RC)
        # Laid out for one matrix product, not R of them.
        weighted_XG = (prob_RG[:, None] * self.kind_GC.T.contiguous()).flatten(0, 1)
        moment_RCC = (weighted_XG @ self.kind_GC).unflatten(0, law_RC.shape)
        covariance_RCC = moment_RCC - law_RC[:, :, None] * law_RC[:, None]
        diagonal_RC = torch.maximum(multiplier_RC * law_RC, self.goal_RC)
        scale_RC = torch.where(self.goal_RC > 0, diagonal_RC, 1.0).sqrt()
        side_RC = multiplier_RC / scale_RC / self.temperature_R.sqrt()[:, None]
        scaled_RCC = side_RC[:, :, None] * covariance_RCC * side_RC[:, None]
        scaled_RCC.diagonal(dim1=1, dim2=2).add_(1.0)
        return torch.linalg.cholesky(scaled_RCC), scale_RC

    def solve(self, tolerance: float) -> tuple[Tensor, Tensor]:
        """(R, C) theta within the tolerance, and the (R,) steps taken."""
        if self.alpha == 0:
            return torch.zeros_like(self.goal_RC), self.goal_RC.new_zeros(len(self.goal_RC)).long()
        theta_RC = self._start()
        steps_R = torch.zeros(len(theta_RC), dtype=torch.int64, device=theta_RC.device)
        finite_RG = self.log_mass_RG.isfinite()
        range_R = torch.where(finite_RG, self.log_mass_RG, -torch.inf).amax(1)
        range_R = range_R - torch.where(finite_RG, self.log_mass_RG, torch.inf).amin(1)
        # How often each row is cooled: where scores spread over thousands of temperatures the dual
        # is all but piecewise linear, and Newton's method wants to start near the solution.
        cooling_R = ((range_R / HOT_RANGE).log() / math.log(COOLING)).ceil().clamp(min=0)
        for level in range(int(cooling_R.max()), 0, -1):
            heated = self.heated(COOLING ** cooling_R.clamp(max=level))
            theta_RC, error_R = heated._newton(theta_RC, steps_R, ROUGH)
        theta_RC, error_R = self._newton(theta_RC, steps_R, tolerance)
        if not bool((error_R <= tolerance).all()):
            raise ValueError(
                f"tolerance={tolerance!r}: a user's error stays at {float(error_R.max()):.3g}: "
                "expected a larger tolerance, or a temperature nearer to the range of the scores"
            )
        return theta_RC, steps_R

    def _start(self) -> Tensor:
        """theta from each category alone: theta + log q(theta) = log(alpha p), linearised.

        The law that all lambda = alpha leaves unmoved is the start of large alpha, lambda = alpha p
        / q that of small alpha; no lambda may tilt further than from q to p.
        """
        law_RC = self.log_mass_RG.softmax(1) @ self.kind_GC
        tiny = torch.finfo(torch.float64).tiny
        ratio_RC = (self.goal_RC / self.alpha).clamp(min=tiny).log() - law_RC.clamp(min=tiny).log()
        temperature_R1 = self.temperature_R[:, None]
        theta_RC = math.log(self.alpha) + ratio_RC / (1 + self.alpha / temperature_R1)
        longest_RC = (self.alpha + temperature_R1 * ratio_RC.clamp(min=0)).log()
        return torch.where(self.goal_RC > 0, torch.minimum(theta_RC, longest_RC), 0.0)

    def _newton(self, theta_RC: Tensor, steps_R: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
        """Newton's method from theta, each row until within the tolerance; steps_R counts on."""
        theta_RC, error_R = theta_RC.clone(), torch.zeros_like(self.temperature_R)
        row_R = torch.arange(len(theta_RC), device=theta_RC.device)
        dual = self
        for _ in range(MAX_STEPS + 1):
            at_RC = theta_RC[row_R]
            prob_RG, value_R = dual.law(at_RC)
            excess_RC = dual.multiplier(at_RC) * (prob_RG @ self.kind_GC) - dual.goal_RC
            error_R[row_R] = excess_RC.abs().amax(1) / self.alpha
            left_R = error_R[row_R] > tolerance
            if not bool(left_R.all()):
                row_R, at_RC, prob_RG = row_R[left_R], at_RC[left_R], prob_RG[left_R]
                excess_RC, value_R, dual = excess_RC[left_R], value_R[left_R], dual.rows(left_R)
            if len(row_R) == 0:
                break
            step_RC = _newton_step(*dual.hessian(at_RC, prob_RG), excess_RC)
            theta_RC[row_R] = dual._line_search(at_RC, step_RC, excess_RC, value_R)
            steps_R[row_R] += 1
        return theta_RC, error_R

    def _line_search(
        self, theta_RC: Tensor, step_RC: Tensor, gradient_RC: Tensor, value_R: Tensor
    ) -> Tensor:
        """The step, halved row by row until the dual falls by Armijo's rule."""
        slope_R = (gradient_RC * step_RC).sum(1)
        slack_R = SLACK * (1 + value_R.abs())
        length_R = torch.ones_like(value_R)
        row_R = torch.arange(len(value_R), device=value_R.device)
        dual = self
        for _ in range(MAX_HALVINGS):
            _, new_R = dual.law(theta_RC[row_R] + length_R[row_R, None] * step_RC[row_R])
            bound_R = value_R[row_R] + SUFFICIENT * length_R[row_R] * slope_R[row_R]
            high_R = ~(new_R <= bound_R + slack_R[row_R])  # a value that is not a number is high
            if not bool(high_R.any()):
                break
            row_R, dual = row_R[high_R], dual.rows(high_R)
            length_R[row_R] /= 2
        return theta_RC + length_R[:, None] * step_RC


def _newton_step(factor_BCC: Tensor, scale_BC: Tensor, gradient_BC: Tensor) -> Tensor:
    """(B, C) minus the inverse Hessian times the gradient, from :meth:`_Dual.hessian`."""
    scaled_BC1 = (gradient_BC / scale_BC)[:, :, None]
    return -torch.cholesky_solve(scaled_BC1, factor_BCC)[:, :, 0] / scale_BC


def _user_blocks(shape: torch.Size, kind_GC: Tensor) -> list[slice]:
    num_rows, num_items = shape
    num_kinds, num_categories = kind_GC.shape
    widest = max(num_items, num_kinds * num_categories, num_categories**2)
    rows = max(1, TILT_ELEMENTS // widest)
    return [slice(start, start + rows) for start in range(0, num_rows, rows)]


def _check(
    interest_BC: Tensor, category_NC: Tensor, alpha: float, tolerance: float, shape: torch.Size
) -> None:
    num_rows, num_items = shape
    require_number("alpha", alpha, at_least=0)
    require_number("tolerance", tolerance, above=0)
    for name, table, rows in (
        ("interest_BC", interest_BC, num_rows),
        ("category_NC", category_NC, num_items),
    ):
        if table.ndim != 2 or len(table) != rows:
            raise ValueError(f"{name} of shape {tuple(table.shape)}: expected {rows} rows")
        if not bool((table >= 0).all()):
            raise ValueError(f"{name} holds {float(table.min())}: expected no negative entry")
    if interest_BC.shape[1] != category_NC.shape[1]:
        raise ValueError(
            f"interest_BC has {interest_BC.shape[1]} categories: expected the "
            f"{category_NC.shape[1]} of category_NC"
        )


def _temperature(temperature: float | Tensor, score_BX: Tensor) -> Tensor:
    """(B,) float64, one for each row of the scores."""
    if not isinstance(temperature, Tensor):
        require_number("temperature", temperature, above=0)
        return score_BX.new_full((len(score_BX),), temperature, dtype=torch.float64)
    sound = temperature.ndim == 0 or temperature.shape == score_BX.shape[:1]
    if not (sound and bool(((temperature > 0) & temperature.isfinite()).all())):
        raise ValueError(
            f"temperature={temperature!r}: expected positive finite numbers, one for each of "
            f"{len(score_BX)} rows"
        )
    return temperature.double().expand(len(score_BX))
