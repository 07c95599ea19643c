"""Is a difference between two methods more than chance? Users are the unit of every answer.

Both methods are measured on the same users, so everything is paired: the same resample, the same
flips for both. Values of several seeds are averaged for each user before they come here. A user
with NaN on either side is left out on both. Equal seeds give equal answers.

- Intervals: Efron and Tibshirani (1993), "An Introduction to the Bootstrap", chapter 13, the
  percentile interval.
- p-values: Fisher's randomisation test. Smucker, Allan and Carterette (CIKM 2007), "A comparison of
  statistical significance tests for information retrieval evaluation", find it, the bootstrap and
  the t-test alike, and advise against the sign and Wilcoxon tests.
- Many comparisons: Holm (1979), "A simple sequentially rejective multiple test procedure".
- Fronts: Zitzler and Thiele (1999), "Multiobjective evolutionary algorithms: a comparative case
  study and the strength Pareto approach", for the area that a front dominates.

With thousands of users almost every difference is significant; its size is what to report.

Shape letters: U users, S samples of a block, X settings of the first method, Y of the second,
P points, M = 2 metrics, T tests.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import ArrayLike

from inforec.checks import require_number

BLOCK = 2**21  # numbers in a block of resamples: 16 MB, whatever the number of users and samples


@dataclass(frozen=True)
class Difference:
    """What two methods reach, the difference first - second, and its interval.

    Attributes:
        first, second: the value of each method on the users that were compared.
        difference: first - second.
        low, high: the ends of the interval.
        level: its nominal coverage.
        num_users: users compared.
    """

    first: float
    second: float
    difference: float
    low: float
    high: float
    level: float
    num_users: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of zero."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Group:
    """The users whose value lies from ``low`` to ``high``, and what the methods differ for them."""

    low: float
    high: float
    difference: Difference

    @property
    def label(self) -> str:
        """The range in three digits."""
        low, high = f"{self.low:.3g}", f"{self.high:.3g}"
        return low if low == high else f"{low}–{high}"


# ---- two methods, one metric --------------------------------------------------------------------


def paired_bootstrap(
    first_U: ArrayLike,
    second_U: ArrayLike,
    *,
    samples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> Difference:
    """The mean difference first - second with its percentile interval over resampled users.

    Args:
        first_U: (U,) one value a user, NaN where the metric is undefined.
        second_U: (U,) the other method's values for the same users.
        samples: resamples of the users.
        level: coverage of the interval.
        seed: of the resampling.

    Raises:
        ValueError: shapes differ, a value is infinite, or fewer than two users are left.
    """
    _check(samples, seed, level)
    first_U, second_U = _pair(first_U, second_U)
    difference_U = first_U - second_U
    mean = [count_SU @ difference_U for count_SU in _resamples(len(difference_U), samples, seed)]
    low, high = _interval(np.concatenate(mean) / len(difference_U), level)
    return Difference(
        first=float(first_U.mean()),
        second=float(second_U.mean()),
        difference=float(difference_U.mean()),
        low=low,
        high=high,
        level=level,
        num_users=len(difference_U),
    )


def bootstrap_by_group(
    first_U: ArrayLike,
    second_U: ArrayLike,
    value_U: ArrayLike,
    *,
    groups: int = 4,
    samples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> list[Group]:
    """:func:`paired_bootstrap` within groups of users that a value puts in order.

    The groups are as even in size as the quantiles of the value allow: users with equal values stay
    together, so that a value with many ties may give fewer groups. A user is left out if any of the
    three numbers is NaN.

    Args:
        first_U: (U,) one value a user.
        second_U: (U,) the other method's values for the same users.
        value_U: (U,) what the users differ in, such as the size of the profile or the entropy of
            P_u.
        groups: how many, at least 2.
        samples, level, seed: as for :func:`paired_bootstrap`; every group has the same seed.

    Raises:
        ValueError: as for :func:`paired_bootstrap`, or a group has fewer than two users.
    """
    require_number("groups", groups, at_least=2, integer=True)
    first_U, second_U, value_U = _together(first_U=first_U, second_U=second_U, value_U=value_U)
    edges = np.unique(np.quantile(value_U, np.linspace(0, 1, groups + 1)[1:-1]))
    group_U = np.searchsorted(edges, value_U, side="left")
    found = []
    for group in np.unique(group_U):
        inside_U = group_U == group
        result = paired_bootstrap(
            first_U[inside_U], second_U[inside_U], samples=samples, level=level, seed=seed
        )
        value = value_U[inside_U]
        found.append(Group(float(value.min()), float(value.max()), result))
    return found


def permutation_test(
    first_U: ArrayLike, second_U: ArrayLike, *, samples: int = 10_000, seed: int = 0
) -> float:
    """Two-sided p-value of the mean difference under flips of the signs of the differences.

    If the methods are alike, each user's two values could as well be the other way round. The
    p-value is the share of such exchanges whose mean difference is at least as far from zero as the
    one seen. If no more than ``samples`` exchanges exist, all are tried and the p-value is exact.
    Otherwise it is (1 + b) / (1 + samples) with b of the drawn ones as far from zero, which is
    valid and never 0: Phipson and Smyth (2010), "Permutation p-values should never be zero".

    Args:
        first_U: (U,) one value a user, NaN where the metric is undefined.
        second_U: (U,) the other method's values for the same users.
        samples: exchanges drawn.
        seed: of the draws.

    Raises:
        ValueError: shapes differ, a value is infinite, or fewer than two users are left.
    """
    _check(samples, seed)
    first_U, second_U = _pair(first_U, second_U)
    difference_U = first_U - second_U
    difference_U = difference_U[difference_U != 0]  # the sign of zero changes nothing
    total = difference_U.sum()
    # Lists take few values, so exact ties are common; rounding must not decide them.
    far = abs(total) - 1e-11 * np.abs(difference_U).sum()
    exact = 2 ** len(difference_U) <= samples
    flips = _all_flips(len(difference_U)) if exact else _flips(len(difference_U), samples, seed)
    as_far = sum(
        int((np.abs(total - 2 * (flip_SU @ difference_U)) >= far).sum()) for flip_SU in flips
    )
    return as_far / 2 ** len(difference_U) if exact else (1 + as_far) / (1 + samples)


# ---- many comparisons ---------------------------------------------------------------------------


@overload
def holm(p_values: Mapping[str, float]) -> dict[str, float]: ...


@overload
def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray: ...


def holm(
    p_values: Mapping[str, float] | Sequence[float] | np.ndarray,
) -> dict[str, float] | np.ndarray:
    """Adjusted p-values: reject those of at most a, and P(any false rejection) is at most a.

    Holm (1979): the j-th smallest of T is multiplied by T - j + 1, is never below the ones before
    it, and never above 1. Valid however the tests depend on each other.

    Args:
        p_values: by name, or (T,) in any order.

    Returns:
        The adjusted values by the same names, or (T,) in the same order.

    Raises:
        ValueError: none given, or one is not within [0, 1].
    """
    if isinstance(p_values, Mapping):
        return dict(zip(p_values, holm(list(p_values.values())).tolist(), strict=True))
    p_T = np.asarray(p_values, dtype=np.float64)
    if p_T.ndim != 1 or not len(p_T) or not ((p_T >= 0) & (p_T <= 1)).all():
        raise ValueError(f"p_values={p_values!r}: expected numbers from 0 to 1, at least one")
    order = np.argsort(p_T, kind="stable")
    stepped = np.maximum.accumulate(p_T[order] * np.arange(len(p_T), 0, -1))
    adjusted_T = np.empty_like(p_T)
    adjusted_T[order] = np.minimum(stepped, 1.0)
    return adjusted_T


# ---- fronts -------------------------------------------------------------------------------------


def pareto_front(
    points_PM: ArrayLike, *, maximise: tuple[bool, bool] = (True, False)
) -> np.ndarray:
    """Indices of the points that no other dominates, in ascending order of the first metric.

    A point dominates another if it is at least as good in both metrics and better in one; equal
    points do not dominate each other.

    Args:
        points_PM: (P, 2) two metrics, such as ndcg and calibration_kl.
        maximise: for each metric, whether more is better.

    Raises:
        ValueError: the points are not finite or not (P, 2) with P at least 1.
    """
    points_PM = _finite("points_PM", points_PM, "(P, 2)", (None, 2))
    gain_PM = points_PM * _signs(maximise)
    order = np.lexsort((-gain_PM[:, 1], -gain_PM[:, 0]))  # best first metric first
    gain_PM = gain_PM[order]
    # Going down the first metric, only a new best of the second is not dominated, and its equals.
    best_P = np.maximum.accumulate(np.concatenate([[-np.inf], gain_PM[:-1, 1]]))
    leads_P = gain_PM[:, 1] > best_P
    leader_P = np.maximum.accumulate(np.where(leads_P, np.arange(len(order)), 0))
    kept = order[(gain_PM == gain_PM[leader_P]).all(1)]
    return kept[np.lexsort((kept, points_PM[kept, 0]))]


def hypervolume(
    points_PM: ArrayLike,
    reference_M: ArrayLike,
    *,
    maximise: tuple[bool, bool] = (True, False),
) -> float:
    """Area between the points' front and a reference point: what at least one of them dominates.

    Zitzler and Thiele (1999) in two dimensions, in units of one metric times the other. A point
    that is not better than the reference in both metrics adds nothing.

    Args:
        points_PM: (P, 2) two metrics.
        reference_M: (2,) the worst values that still count; the same for all that is compared.
        maximise: for each metric, whether more is better.

    Raises:
        ValueError: values are not finite or of another shape.
    """
    points_PM = _finite("points_PM", points_PM, "(P, 2)", (None, 2))
    reference_M = _finite("reference_M", reference_M, "(2,)", (2,))
    return float(_area((points_PM - reference_M) * _signs(maximise)))


def paired_hypervolume(
    first_XUM: ArrayLike,
    second_YUM: ArrayLike,
    reference_M: ArrayLike,
    *,
    maximise: tuple[bool, bool] = (True, False),
    samples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> Difference:
    """The difference of two methods' hypervolumes, with its interval over resampled users.

    Each method is a set of settings. A resample of the users, the same for both methods, gives each
    setting a point (the means of its two metrics) and each method an area. A user with NaN in any
    setting is left out of all. More settings give a method more chances, here as in the area
    itself: compare equal numbers, or choose each front on validation and pass only its settings.

    Args:
        first_XUM: (X, U, 2) two metrics of every user under X settings.
        second_YUM: (Y, U, 2) the same users under the other method's settings.
        reference_M: (2,) the worst means that still count.
        maximise: for each metric, whether more is better.
        samples, level, seed: as for :func:`paired_bootstrap`.

    Raises:
        ValueError: shapes do not fit, a value is infinite, or fewer than two users are left.
    """
    _check(samples, seed, level)
    reference_M = _finite("reference_M", reference_M, "(2,)", (2,))
    first_XUM = _numbers("first_XUM", first_XUM, "(X, U, 2)", (None, None, 2))
    num_users = first_XUM.shape[1]
    second_YUM = _numbers("second_YUM", second_YUM, f"(Y, {num_users}, 2)", (None, num_users, 2))
    num_first = len(first_XUM)
    both_UXM = np.concatenate([first_XUM, second_YUM]).swapaxes(0, 1)
    both_UXM = both_UXM[~np.isnan(both_UXM).any((1, 2))]
    _require_users(len(both_UXM))
    num_users, signs_M = len(both_UXM), _signs(maximise)

    def areas(mean_SXM: np.ndarray) -> np.ndarray:
        gain_SXM = (mean_SXM - reference_M) * signs_M
        return np.stack([_area(gain_SXM[:, :num_first]), _area(gain_SXM[:, num_first:])])

    first, second = areas(both_UXM.mean(0)[None])[:, 0]
    flat = both_UXM.reshape(num_users, -1)
    drawn = np.concatenate(
        [
            areas((count_SU @ flat / num_users).reshape(-1, *both_UXM.shape[1:]))
            for count_SU in _resamples(num_users, samples, seed)
        ],
        axis=1,
    )
    low, high = _interval(drawn[0] - drawn[1], level)
    return Difference(
        first=float(first),
        second=float(second),
        difference=float(first - second),
        low=low,
        high=high,
        level=level,
        num_users=num_users,
    )


def _area(gain_XM: np.ndarray) -> np.ndarray:
    """Area of the union of the boxes from 0 to each gain, over the last two axes (X, 2)."""
    gain_XM = np.maximum(gain_XM, 0.0)
    order = np.argsort(-gain_XM[..., 0], axis=-1, kind="stable")
    width = np.take_along_axis(gain_XM[..., 0], order, -1)
    height = np.take_along_axis(gain_XM[..., 1], order, -1)
    # From the widest box inwards: a strip is as high as the highest box that reaches it.
    strip = width - np.concatenate([width[..., 1:], np.zeros_like(width[..., :1])], -1)
    return (strip * np.maximum.accumulate(height, -1)).sum(-1)


# ---- draws and checks ---------------------------------------------------------------------------


def _blocks(num_users: int, samples: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of blocks of samples with at most about BLOCK numbers each."""
    size = max(1, BLOCK // max(1, num_users))
    for start in range(0, samples, size):
        yield start, min(start + size, samples)


def _resamples(num_users: int, samples: int, seed: int) -> Iterator[np.ndarray]:
    """Blocks (S, U) of how often each user is in each resample; every row sums to U."""
    draw = np.random.default_rng(seed)
    for start, stop in _blocks(num_users, samples):
        size = stop - start
        place_SU = draw.integers(num_users, size=(size, num_users))
        place_SU += num_users * np.arange(size)[:, None]
        count = np.bincount(place_SU.ravel(), minlength=size * num_users)
        yield count.reshape(size, num_users).astype(np.float64)


def _flips(num_users: int, samples: int, seed: int) -> Iterator[np.ndarray]:
    """Blocks (S, U) of fair coins, 0 or 1; 64 come from one draw."""
    draw = np.random.default_rng(seed)
    words = -(-num_users // 64)
    for start, stop in _blocks(num_users, samples):
        word = draw.integers(2**64, size=(stop - start, words), dtype=np.uint64)
        bit = np.unpackbits(word.astype("<u8").view(np.uint8), axis=1)
        yield bit[:, :num_users].astype(np.float64)


def _all_flips(num_users: int) -> Iterator[np.ndarray]:
    """Blocks (S, U) of all 2^U patterns of 0 and 1."""
    for start, stop in _blocks(num_users, 2**num_users):
        pattern = np.arange(start, stop)[:, None]
        yield ((pattern >> np.arange(num_users)) & 1).astype(np.float64)


def _interval(drawn: np.ndarray, level: float) -> tuple[float, float]:
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _check(samples: int, seed: int, level: float = 0.5) -> None:
    require_number("samples", samples, at_least=1, integer=True)
    require_number("seed", seed, at_least=0, integer=True)
    if not 0 < level < 1:
        raise ValueError(f"level={level!r}: expected a number above 0 and below 1")


def _numbers(name: str, value: ArrayLike, wanted: str, shape: Sequence[int | None]) -> np.ndarray:
    """``value`` as float64; None in ``shape`` stands for any size but 0. NaN may pass."""
    array = np.asarray(value, dtype=np.float64)
    fits = array.ndim == len(shape) and all(
        have > 0 if want is None else have == want
        for have, want in zip(array.shape, shape, strict=True)
    )
    if not fits:
        raise ValueError(f"{name} of shape {array.shape}: expected {wanted}")
    if np.isinf(array).any():
        raise ValueError(f"{name}: {int(np.isinf(array).sum())} values are infinite")
    return array


def _finite(name: str, value: ArrayLike, wanted: str, shape: Sequence[int | None]) -> np.ndarray:
    array = _numbers(name, value, wanted, shape)
    if np.isnan(array).any():
        raise ValueError(f"{name}: {int(np.isnan(array).sum())} values are NaN")
    return array


def _together(**value_U: ArrayLike) -> list[np.ndarray]:
    """The arrays without the users who have NaN in any of them."""
    num_users = np.asarray(next(iter(value_U.values()))).size
    arrays = [_numbers(name, x_U, f"({num_users},)", (num_users,)) for name, x_U in value_U.items()]
    kept_U = ~np.isnan(arrays).any(0)
    _require_users(int(kept_U.sum()))
    return [array[kept_U] for array in arrays]


def _pair(first_U: ArrayLike, second_U: ArrayLike) -> list[np.ndarray]:
    return _together(first_U=first_U, second_U=second_U)


def _require_users(number: int) -> None:
    if number < 2:
        raise ValueError(f"{number} users have all values: expected at least 2")


def _signs(maximise: tuple[bool, bool]) -> np.ndarray:
    if np.shape(maximise) != (2,) or np.asarray(maximise).dtype != bool:
        raise ValueError(f"maximise={maximise!r}: expected two bools, one a metric")
    return np.where(maximise, 1.0, -1.0)
