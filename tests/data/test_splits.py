"""The splits against slow versions written from their definitions."""

import numpy as np
import pytest

from inforec.data import splits


def _interactions(seed, users=30, items=50):
    """Distinct pairs sorted by user and item, every user with at least one, and tied times."""
    rng = np.random.default_rng(seed)
    has = rng.random((users, items)) < rng.random((users, 1)) ** 2
    has[:, 0] |= ~has.any(1)
    user, item = np.nonzero(has)
    return user, item, rng.integers(0, 40, len(user))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_random_is_80_10_10_within_each_user(seed):
    user, _, _ = _interactions(seed)
    part = splits.random(user, seed)
    assert np.bincount(user).min() < 3 < np.bincount(user).max()
    for u in range(user.max() + 1):
        n = int((user == u).sum())
        tenth = max(1, round(0.1 * n)) if n >= 3 else 0
        sizes = [int((part[user == u] == which).sum()) for which in (0, 1, 2)]
        assert sizes == [n - 2 * tenth, tenth, tenth]


def test_random_follows_the_seed():
    user, _, _ = _interactions(0)
    first = splits.random(user, 1)
    assert (first == splits.random(user, 1)).all()
    assert (first != splits.random(user, 2)).any()


def test_random_draws_the_same_for_ever():
    # Records name a seed: what it means may not change with a version of NumPy.
    user = np.repeat([0, 1], 10)
    first = [1, 0, 0, 0, 0, 0, 0, 2, 0, 0]
    second = [0, 0, 0, 0, 0, 0, 0, 0, 1, 2]
    assert splits.random(user, 2026).tolist() == first + second


def test_random_gives_each_place_its_share():
    user = np.zeros(10, np.int64)
    tested = sum((splits.random(user, seed) == splits.TEST).astype(int) for seed in range(2000))
    # 2000 draws of 1 in 10 have a standard deviation of 13.4; five of them are allowed.
    assert abs(tested - 200).max() < 68


@pytest.mark.parametrize("seed", [0, 1])
def test_leave_one_out_takes_the_last_two(seed):
    user, item, time = _interactions(seed)
    part = splits.leave_one_out(user, item, time)
    for u in range(user.max() + 1):
        rows = sorted(np.flatnonzero(user == u), key=lambda row: (time[row], item[row]))
        expected = [0] * len(rows)
        if len(rows) >= 3:
            expected[-2:] = [1, 2]
        assert part[rows].tolist() == expected


def test_temporal_cuts_one_clock():
    _, _, time = _interactions(0)
    part = splits.temporal(time)
    assert time[part == 0].max() < time[part == 1].min()
    assert time[part == 1].max() < time[part == 2].min()
    time = np.random.default_rng(0).permutation(1000)
    part = splits.temporal(time)
    assert np.bincount(part).tolist() == [800, 100, 100]
    assert time[part == 0].max() == 799 and time[part == 2].min() == 900


def test_hold_out_takes_a_tenth_of_the_training_rows():
    user, _, _ = _interactions(3)
    given = np.where(np.random.default_rng(0).random(len(user)) < 0.2, splits.TEST, splits.TRAIN)
    part = splits.hold_out(user, given, 5)
    assert ((part == splits.TEST) == (given == splits.TEST)).all()
    for u in range(user.max() + 1):
        n = int(((user == u) & (given == splits.TRAIN)).sum())
        held = int(((user == u) & (part == splits.VALID)).sum())
        assert held == (max(1, round(0.1 * n)) if n >= 2 else 0)
    assert (part != splits.hold_out(user, given, 6)).any()


def test_assert_disjoint_sees_a_shared_pair():
    user, item = np.array([0, 0, 1, 0]), np.array([1, 2, 1, 2])
    splits.assert_disjoint(user, item, np.array([0, 1, 2, 1]))
    with pytest.raises(AssertionError, match="sets 1 and 2"):
        splits.assert_disjoint(user, item, np.array([0, 1, 2, 2]))
    with pytest.raises(AssertionError, match="sets 0 and 2"):
        splits.assert_disjoint(user, item, np.array([0, 2, 1, 0]))
