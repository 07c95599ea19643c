"""Tests of significance and fronts, against loops, full enumeration and cases worked by hand.

Shape letters: U users, X settings of the first method, Y of the second, P points, M metrics.
"""

import itertools
import math

import numpy as np
import pytest
import torch

from inforec import significance
from inforec.significance import (
    bootstrap_by_group,
    holm,
    hypervolume,
    paired_bootstrap,
    paired_hypervolume,
    pareto_front,
    permutation_test,
)

NAN, INF = math.nan, math.inf


def users(seed, number, shift=0.1):
    draw = np.random.default_rng(seed)
    second_U = draw.random(number)
    return second_U + draw.normal(shift, 0.2, number), second_U


# ---- bootstrap ----------------------------------------------------------------------------------


def test_bootstrap_is_the_loop_over_resamples():
    first_U, second_U = users(0, 30)
    ours = paired_bootstrap(first_U, second_U, samples=200, level=0.9, seed=5)
    draw, means = np.random.default_rng(5), []
    for _ in range(200):
        chosen = draw.integers(30, size=30)
        means.append(sum(float(first_U[u] - second_U[u]) for u in chosen) / 30)
    means.sort()
    # Linear interpolation between order statistics, at ranks 0.05 * 199 and 0.95 * 199.
    low = means[9] + 0.95 * (means[10] - means[9])
    high = means[189] + 0.05 * (means[190] - means[189])
    assert (ours.low, ours.high) == pytest.approx((low, high), rel=1e-12)
    assert ours.difference == pytest.approx(np.mean(first_U - second_U), rel=1e-12)
    assert (ours.first, ours.second) == pytest.approx((first_U.mean(), second_U.mean()), rel=1e-12)
    assert (ours.level, ours.num_users) == (0.9, 30)


def test_bootstrap_ends_are_those_of_all_resamples():
    difference_U = np.array([0.0, 0.3, -0.1, 1.0])
    every = sorted(sum(chosen) / 4 for chosen in itertools.product(difference_U, repeat=4))
    # 3 % of the 256 equally likely resamples: the 8th from each side, between ties of their mean.
    ours = paired_bootstrap(difference_U, np.zeros(4), samples=200_000, level=0.94)
    assert ours.low == pytest.approx(every[round(0.03 * 256)], abs=1e-12)
    assert ours.high == pytest.approx(every[-1 - round(0.03 * 256)], abs=1e-12)


def test_bootstrap_agrees_with_scipy():
    stats = pytest.importorskip("scipy.stats")
    first_U, second_U = users(1, 80)
    ours = paired_bootstrap(first_U, second_U, samples=20_000)
    theirs = stats.bootstrap(
        (first_U - second_U,), np.mean, n_resamples=20_000, method="percentile", rng=3
    ).confidence_interval
    width = ours.high - ours.low
    assert ours.low == pytest.approx(theirs.low, abs=0.02 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.02 * width)


def test_order_of_the_methods_turns_the_interval_round():
    first_U, second_U = users(2, 40)
    there, back = paired_bootstrap(first_U, second_U), paired_bootstrap(second_U, first_U)
    assert (back.low, back.high) == pytest.approx((-there.high, -there.low), rel=1e-12)
    assert there.difference == -back.difference and there.first == back.second


def test_excludes_zero_on_either_side():
    first_U, second_U = users(3, 40, shift=0.5)
    assert paired_bootstrap(first_U, second_U).excludes_zero
    assert paired_bootstrap(second_U, first_U).excludes_zero
    assert not paired_bootstrap(first_U, first_U).excludes_zero
    assert not paired_bootstrap(*users(3, 40, shift=0.0)).excludes_zero


def test_users_with_nan_on_either_side_are_left_out_on_both():
    first_U, second_U = users(4, 20)
    with_nan_U = [np.concatenate([first_U, [NAN, 7.0]]), np.concatenate([second_U, [5.0, NAN]])]
    assert paired_bootstrap(*with_nan_U) == paired_bootstrap(first_U, second_U)
    assert permutation_test(*with_nan_U) == permutation_test(first_U, second_U)


def test_tensors_and_lists_are_taken():
    first_U, second_U = users(5, 12)
    wanted = paired_bootstrap(first_U, second_U)
    assert paired_bootstrap(torch.tensor(first_U), second_U.tolist()) == wanted


@pytest.mark.parametrize("block", [1, 100, 2**21])
def test_blocks_change_memory_and_nothing_else(monkeypatch, block):
    first_U, second_U = users(6, 70)
    first_XUM = np.random.default_rng(0).random((2, 70, 2))
    monkeypatch.setattr(significance, "BLOCK", block)
    ours = paired_bootstrap(first_U, second_U, samples=30)
    p_value = permutation_test(first_U, second_U, samples=30)
    area = paired_hypervolume(first_XUM, first_XUM[:1], (0.0, 1.0), samples=30)
    monkeypatch.setattr(significance, "BLOCK", 700)
    other = paired_bootstrap(first_U, second_U, samples=30)
    assert (ours.low, ours.high) == pytest.approx((other.low, other.high), rel=1e-12)
    assert p_value == permutation_test(first_U, second_U, samples=30)
    other = paired_hypervolume(first_XUM, first_XUM[:1], (0.0, 1.0), samples=30)
    assert (area.low, area.high) == pytest.approx((other.low, other.high), rel=1e-12)


def test_equal_seeds_give_equal_answers_and_others_do_not():
    first_U, second_U = users(7, 50, shift=0.02)
    for ask in (paired_bootstrap, permutation_test):
        asked = [ask(first_U, second_U, samples=500, seed=seed) for seed in (1, 1, 2)]
        assert asked[0] == asked[1] != asked[2]


# ---- groups -------------------------------------------------------------------------------------


def test_groups_are_quantiles_and_each_is_a_bootstrap():
    first_U, second_U = users(8, 40)
    size_U = np.random.default_rng(0).permutation(40)
    found = bootstrap_by_group(first_U, second_U, size_U, groups=4, samples=300)
    assert [(g.low, g.high) for g in found] == [(0, 9), (10, 19), (20, 29), (30, 39)]
    for group in found:
        inside_U = (size_U >= group.low) & (size_U <= group.high)
        wanted = paired_bootstrap(first_U[inside_U], second_U[inside_U], samples=300)
        assert group.difference == wanted
    assert [g.label for g in found] == ["0–9", "10–19", "20–29", "30–39"]


def test_users_with_equal_values_stay_together():
    first_U, second_U = users(9, 12)
    size_U = [5, 5, 5, 5, 5, 5, 5, 8, 8, 9, 9, NAN]
    found = bootstrap_by_group(first_U, second_U, size_U, samples=10)
    assert [(g.low, g.high, g.difference.num_users) for g in found] == [
        *((5, 5, 7), (8, 8, 2), (9, 9, 2)),
    ]
    assert found[0].label == "5"


# ---- permutation test ---------------------------------------------------------------------------


def by_enumeration(difference_U):
    seen = abs(sum(difference_U))
    as_far = [
        abs(sum(s * d for s, d in zip(signs, difference_U, strict=True))) >= seen - 1e-9
        for signs in itertools.product((-1, 1), repeat=len(difference_U))
    ]
    return sum(as_far) / len(as_far)


@pytest.mark.parametrize("difference_U", [[0.1, 0.2, 0.3], [0.1, 0.2, -0.3, 0.7, 0.0, 0.4], [1, 1]])
def test_few_users_are_enumerated(difference_U):
    ours = permutation_test(difference_U, np.zeros(len(difference_U)))
    assert ours == pytest.approx(by_enumeration(difference_U), rel=1e-12)


def test_three_gains_worked_by_hand():
    # Eight patterns; only +++ and --- are as far from zero as +++.
    assert permutation_test([0.1, 0.2, 0.4], [0.0, 0.0, 0.0]) == 2 / 8
    # 0.1 + 0.2 and 0.3 are a tie, whichever way they round: + + -, and its mirror image, are as
    # far from zero as any other pattern, for the sum seen is 0.
    assert permutation_test([0.1, 0.2, -0.3], [0.0, 0.0, 0.0]) == 1.0


def test_ties_are_not_decided_by_rounding():
    # Users with few values, as lists have: counted in whole numbers, then scaled.
    for seed in range(30):
        whole_U = np.random.default_rng(seed).integers(-3, 4, size=9)
        exact = by_enumeration(whole_U.tolist())
        for scale in (0.3 / 7, 1e-5 / 3, 7e4 / 11):
            assert permutation_test(whole_U * scale, np.zeros(9)) == exact


def test_exact_agrees_with_scipy():
    stats = pytest.importorskip("scipy.stats")
    first_U, second_U = users(10, 9)
    theirs = stats.permutation_test(
        (first_U, second_U), lambda a, b: np.mean(a - b), permutation_type="samples"
    )
    assert permutation_test(first_U, second_U) == pytest.approx(theirs.pvalue, rel=1e-12)


def test_drawn_agrees_with_exact_and_has_the_correction():
    first_U, second_U = users(16, 14, shift=0.08)
    exact = by_enumeration((first_U - second_U).tolist())
    assert 0.05 < exact < 0.5
    drawn = permutation_test(first_U, second_U, samples=16_000)  # 2^14 = 16,384: all are not tried
    assert drawn == pytest.approx(exact, abs=3 * math.sqrt(exact / 16_000))
    assert drawn != exact and (drawn * 16_001) == pytest.approx(round(drawn * 16_001), abs=1e-6)
    # Nothing drawn is as far: 1 / (1 + samples), never 0.
    assert permutation_test(np.ones(80), np.zeros(80), samples=99) == 1 / 100


def test_equal_methods_have_p_one():
    same_U = np.random.default_rng(0).random(100)
    assert permutation_test(same_U, same_U) == 1.0


def test_every_user_has_fair_and_independent_flips():
    (flip_SU,) = significance._flips(130, 4_000, seed=0)
    assert set(np.unique(flip_SU)) == {0.0, 1.0}
    error = 1 / math.sqrt(4_000)
    assert np.abs(flip_SU.mean(0) - 0.5).max() < 2.5 * error
    correlation_UU = np.corrcoef(flip_SU.T) - np.eye(130)
    assert np.abs(correlation_UU).max() < 5.5 * error


# ---- Holm ---------------------------------------------------------------------------------------


def test_holm_worked_by_hand():
    # Sorted 0.005 x 4, 0.01 x 3, 0.03 x 2, 0.04 x 1; the last is raised to the one before it.
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm({"b": 0.04, "a": 0.02}) == pytest.approx({"b": 0.04, "a": 0.04})
    assert list(holm({"b": 0.04, "a": 0.02})) == ["b", "a"]
    assert holm([0.7, 0.6]).tolist() == [1.0, 1.0]
    assert holm([0.2]).tolist() == [0.2]


def test_holm_rejects_what_the_step_down_procedure_rejects():
    p_T = np.random.default_rng(0).random(12) ** 3
    for level in (0.01, 0.05, 0.2):
        rejected = set()
        for step, test in enumerate(sorted(range(12), key=lambda t: p_T[t])):
            if p_T[test] > level / (12 - step):
                break
            rejected.add(test)
        assert set(np.flatnonzero(holm(p_T) <= level)) == rejected


# ---- fronts -------------------------------------------------------------------------------------


def slow_front(points, signs):
    def dominates(a, b):
        gains = [s * (x - y) for s, x, y in zip(signs, a, b, strict=True)]
        return min(gains) >= 0 and max(gains) > 0

    return {i for i, b in enumerate(points) if not any(dominates(a, b) for a in points)}


DIRECTIONS = list(itertools.product((True, False), repeat=2))


@pytest.mark.parametrize("maximise", DIRECTIONS)
@pytest.mark.parametrize("levels", [3, 6, 1000])
def test_front_is_what_nobody_dominates(maximise, levels):
    signs = [1 if more else -1 for more in maximise]
    for seed in range(20):  # few levels: ties in one metric and equal points
        points_PM = np.random.default_rng(seed).integers(levels, size=(15, 2))
        found = pareto_front(points_PM, maximise=maximise)
        assert set(found.tolist()) == slow_front(points_PM.tolist(), signs)
        assert len(found) == len(set(found.tolist()))
        assert (np.diff(points_PM[found, 0]) >= 0).all()


def test_front_of_ndcg_and_divergence():
    points_PM = [(0.30, 0.40), (0.28, 0.10), (0.27, 0.20), (0.25, 0.05), (0.30, 0.50)]
    assert pareto_front(points_PM).tolist() == [3, 1, 0]


def test_hypervolume_worked_by_hand():
    # Boxes 3 x 1, 2 x 2 and 1 x 3 from the reference (0, 0): a staircase of six squares.
    assert hypervolume([(3, 1), (2, 2), (1, 3)], (0, 0), maximise=(True, True)) == 6
    # ndcg up, divergence down from 0.5: 0.3 x 0.1 and, above it, 0.2 x 0.3.
    points_PM = [(0.3, 0.4), (0.2, 0.1)]
    assert hypervolume(points_PM, (0.0, 0.5)) == pytest.approx(0.3 * 0.1 + 0.2 * 0.3, rel=1e-12)
    # Points that are not better than the reference in both add nothing.
    assert hypervolume([*points_PM, (0.9, 0.6), (-0.1, 0.0)], (0.0, 0.5)) == pytest.approx(0.09)
    assert hypervolume([(0.9, 0.6)], (0.0, 0.5)) == 0.0


@pytest.mark.parametrize("maximise", DIRECTIONS)
def test_hypervolume_counts_cells(maximise):
    side = 12
    sign_M = np.where(maximise, 1, -1)
    for seed in range(5):
        gain_PM = np.random.default_rng(seed).integers(-2, side + 1, size=(6, 2))
        cells = sum(
            any(x < a and y < b for a, b in gain_PM.tolist())
            for x in range(side)
            for y in range(side)
        )
        reference_M = np.array([0.5, -3.0])
        ours = hypervolume(reference_M + sign_M * gain_PM, reference_M, maximise=maximise)
        assert ours == pytest.approx(cells, rel=1e-12)


def test_paired_hypervolume_is_the_loop_over_resamples():
    draw = np.random.default_rng(0)
    first_XUM, second_YUM = draw.random((4, 25, 2)), draw.random((3, 25, 2)) - 0.05
    reference, maximise = (0.1, 0.9), (True, False)
    ours = paired_hypervolume(
        first_XUM, second_YUM, reference, maximise=maximise, samples=100, level=0.8, seed=3
    )

    def area(values_XUM, chosen):
        points = [[values_UM[chosen, m].mean() for m in (0, 1)] for values_UM in values_XUM]
        return hypervolume(points, reference, maximise=maximise)

    draw, wanted = np.random.default_rng(3), []
    for _ in range(100):
        chosen = draw.integers(25, size=25)
        wanted.append(area(first_XUM, chosen) - area(second_YUM, chosen))
    assert (ours.low, ours.high) == pytest.approx(np.quantile(wanted, [0.1, 0.9]), rel=1e-10)
    assert ours.first == pytest.approx(area(first_XUM, np.arange(25)), rel=1e-12)
    assert ours.second == pytest.approx(area(second_YUM, np.arange(25)), rel=1e-12)
    assert ours.difference == pytest.approx(ours.first - ours.second, rel=1e-12)


def test_paired_hypervolume_leaves_a_user_with_nan_out_of_all_settings():
    draw = np.random.default_rng(1)
    first_XUM, second_YUM = draw.random((2, 10, 2)), draw.random((3, 10, 2))
    wanted = paired_hypervolume(first_XUM[:, 1:], second_YUM[:, 1:], (0, 1), samples=50)
    second_YUM[2, 0, 1] = NAN
    assert paired_hypervolume(first_XUM, second_YUM, (0, 1), samples=50) == wanted
    assert wanted.num_users == 9


def test_the_same_method_has_no_difference_of_area():
    first_XUM = np.random.default_rng(2).random((3, 30, 2))
    same = paired_hypervolume(first_XUM, first_XUM[::-1], (0, 1), samples=100)
    assert (same.low, same.difference, same.high) == pytest.approx((0, 0, 0), abs=1e-15)


# ---- what is refused ----------------------------------------------------------------------------

GOOD = [0.1, 0.2, 0.4]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: paired_bootstrap(GOOD, GOOD[:2]), r"second_U of shape \(2,\): expected \(3,\)"),
        (lambda: paired_bootstrap([GOOD], [GOOD]), r"first_U of shape \(1, 3\)"),
        (lambda: paired_bootstrap(GOOD, [0.1, INF, 0.3]), "second_U: 1 values are infinite"),
        (lambda: paired_bootstrap([1, NAN], [NAN, 1]), "0 users have all values"),
        (lambda: paired_bootstrap([], []), "0 users"),
        (lambda: permutation_test([1, 2], [NAN, 1]), "1 users have all values: expected at lea"),
        (lambda: permutation_test(GOOD, GOOD, samples=0), "samples=0: expected a whole number"),
        (lambda: paired_bootstrap(GOOD, GOOD, level=95), "level=95: expected a number above 0"),
        (lambda: paired_bootstrap(GOOD, GOOD, level=NAN), "level=nan"),
        (lambda: paired_bootstrap(GOOD, GOOD, seed=-1), "seed=-1"),
        (lambda: bootstrap_by_group(GOOD, GOOD, GOOD, groups=1), "groups=1"),
        (lambda: bootstrap_by_group(GOOD, GOOD, GOOD, groups=3), "1 users"),
        (lambda: bootstrap_by_group(GOOD, GOOD, GOOD[:1]), r"value_U of shape \(1,\)"),
        (lambda: holm([0.1, NAN]), "p_values=.*: expected numbers from 0 to 1"),
        (lambda: holm([1.1]), "p_values"),
        (lambda: holm([]), "at least one"),
        (lambda: holm({}), "at least one"),
        (lambda: pareto_front([0.1, 0.2]), r"points_PM of shape \(2,\): expected \(P, 2\)"),
        (lambda: pareto_front(np.zeros((0, 2))), r"points_PM of shape \(0, 2\)"),
        (lambda: pareto_front([(0.1, NAN)]), "points_PM: 1 values are NaN"),
        (lambda: pareto_front([(0.1, 0.2)], maximise=True), "maximise=True"),
        (lambda: pareto_front([(0.1, 0.2)], maximise=(1, 0)), r"maximise=\(1, 0\): expected two"),
        (lambda: hypervolume([(0.1, 0.2)], 0.0), r"reference_M of shape \(\): expected \(2,\)"),
        (lambda: hypervolume([(0.1, 0.2)], (0.0, NAN)), "reference_M: 1 values are NaN"),
        (
            lambda: paired_hypervolume(np.zeros((2, 5, 2)), np.zeros((2, 4, 2)), (0, 0)),
            r"second_YUM of shape \(2, 4, 2\): expected \(Y, 5, 2\)",
        ),
        (lambda: paired_hypervolume(np.zeros((5, 2)), np.zeros((5, 2)), (0, 0)), "first_XUM"),
        (
            lambda: paired_hypervolume(np.full((1, 5, 2), NAN), np.zeros((1, 5, 2)), (0, 0)),
            "0 users",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# ---- what the answers promise -------------------------------------------------------------------


@pytest.mark.slow
def test_bootstrap_intervals_cover_as_often_as_they_say():
    draw, runs = np.random.default_rng(0), 3_000
    covered = 0
    for run in range(runs):
        # Skewed and mostly zero, as differences of ndcg are; the true mean is 0.3 * (1 - 0.5).
        difference_U = (draw.random(150) < 0.3) * (draw.exponential(size=150) - 0.5)
        found = paired_bootstrap(difference_U, np.zeros(150), samples=1_000, seed=run)
        covered += found.low <= 0.15 <= found.high
    # Three standard errors below 95 %, and one point for the skewness, which the percentile
    # interval ignores; from 97 % it would be too wide.
    assert 0.92 < covered / runs < 0.97


@pytest.mark.slow
def test_hypervolume_intervals_cover_as_often_as_they_say():
    draw, runs = np.random.default_rng(1), 1_000
    first = np.array([(0.30, 0.40), (0.26, 0.15), (0.20, 0.05)])
    second = np.array([(0.31, 0.45), (0.24, 0.20), (0.15, 0.10)])
    truth = hypervolume(first, (0, 1)) - hypervolume(second, (0, 1))
    covered = 0
    for run in range(runs):
        taste_UM = draw.normal(0, 0.2, (200, 2))  # what the settings of both methods share
        first_XUM, second_YUM = (
            mean[:, None] + taste_UM + draw.normal(0, 0.1, (3, 200, 2)) for mean in (first, second)
        )
        found = paired_hypervolume(first_XUM, second_YUM, (0, 1), samples=500, seed=run)
        covered += found.low <= truth <= found.high
    assert 0.92 < covered / runs < 0.98


@pytest.mark.slow
def test_permutation_p_values_are_uniform_if_the_methods_are_alike():
    draw, runs, samples = np.random.default_rng(2), 3_000, 199
    p_values = []
    for run in range(runs):
        difference_U = draw.standard_t(3, size=25)
        p_values.append(permutation_test(difference_U, np.zeros(25), samples=samples, seed=run))
    place = np.arange(1, samples + 2) / (samples + 1)
    share = (np.array(p_values)[:, None] <= place + 1e-12).mean(0)
    # The Kolmogorov distance exceeds 1.63 / sqrt(runs) once in a hundred times.
    assert np.abs(share - place).max() < 1.63 / math.sqrt(runs)
