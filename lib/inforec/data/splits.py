"""Who is in training, validation and test: 0, 1 and 2 for each interaction.

E interactions, in the loader's order: by user, then item. All functions work on NumPy arrays, have
no loop over rows, and give the same answer for the same seed under every version of NumPy, because
they draw raw 64-bit words.
"""

from __future__ import annotations

import numpy as np

TRAIN, VALID, TEST = 0, 1, 2
NAMES = ("random", "leave_one_out", "temporal", "given")


def rank(user, *keys):
    """(E,) place of each row among its user's, 0 first, ordered by the keys, the first foremost."""
    order = np.lexsort((*reversed(keys), user))
    counts = np.bincount(user)
    first = np.cumsum(counts) - counts
    place = np.empty(len(user), np.int64)
    place[order] = np.arange(len(user)) - first[user[order]]
    return place


def _tenth(n):
    """Ten per cent of n, rounded, at least one."""
    return np.maximum(1, np.rint(0.1 * n).astype(np.int64))


def random(user, seed: int):
    """Within each user 10 % test, 10 % validation (each rounded, at least one), the rest training.

    A user with fewer than three interactions keeps them all for training.
    """
    n = np.bincount(user)[user]
    place = rank(user, np.random.PCG64(seed).random_raw(len(user)))
    share = np.where(n >= 3, _tenth(n), 0)
    return np.select([place < share, place < 2 * share], [TEST, VALID], TRAIN)


def leave_one_out(user, item, time):
    """Each user's last interaction is test, the last but one validation, the others training.

    Equal times are ordered by item number. A user with fewer than three interactions keeps them
    all for training.
    """
    n = np.bincount(user)[user]
    left = n - 1 - rank(user, time, item)
    return np.where(n >= 3, np.select([left == 0, left == 1], [TEST, VALID], TRAIN), TRAIN)


def temporal(time):
    """One clock for all: the first 80 % of the interactions train, the next 10 % validate.

    Interactions of the same time stay together, on the later side of the cut.
    """
    ordered = np.sort(time)
    first, second = ordered[int(0.8 * len(time))], ordered[int(0.9 * len(time))]
    return np.select([time < first, time < second], [TRAIN, VALID], TEST)


def hold_out(user, part, seed: int):
    """A given split without validation: 10 % of each user's training rows become validation.

    Rounded, at least one; a user's only training row stays.
    """
    part = part.copy()
    rows = np.flatnonzero(part == TRAIN)
    user = user[rows]
    n = np.bincount(user)[user]
    place = rank(user, np.random.PCG64(seed).random_raw(len(rows)))
    part[rows[(n >= 2) & (place < _tenth(n))]] = VALID
    return part


def shuffled(num_rows: int, seed: int):
    """Of all rows, whoever they belong to, 10 % test, 10 % validation (rounded down), the rest
    training."""
    place = rank(np.zeros(num_rows, np.int64), np.random.PCG64(seed).random_raw(num_rows))
    share = num_rows // 10
    return np.select([place < share, place < 2 * share], [TEST, VALID], TRAIN)


def tenth_of_rest(num_rows: int, seed: int):
    """Of all rows, whoever they belong to, 10 % test, 10 % of the others validation (each rounded
    down), the rest training."""
    place = rank(np.zeros(num_rows, np.int64), np.random.PCG64(seed).random_raw(num_rows))
    test = num_rows // 10
    valid = (num_rows - test) // 10
    return np.select([place < test, place < test + valid], [TEST, VALID], TRAIN)


def time_ordered(user, time):
    """Within each user the last 10 % test, the 10 % before validation (each rounded, at least one).

    A user with fewer than three rows keeps them all for training; equal times stand in the order of
    the rows.
    """
    n = np.bincount(user)[user]
    left = n - 1 - rank(user, time)
    share = np.where(n >= 3, _tenth(n), 0)
    return np.select([left < share, left < 2 * share], [TEST, VALID], TRAIN)


def hold_out_rows(part, seed: int):
    """A given split without validation: 10 % of all training rows (rounded down) become it."""
    part = part.copy()
    rows = np.flatnonzero(part == TRAIN)
    part[rows[shuffled(len(rows), seed) == TEST]] = VALID
    return part


def assert_disjoint(user, item, part):
    """No (user, item) pair is in two of the three sets."""
    width = int(item.max()) + 1 if len(item) else 1
    pair = [(user[part == which] * width + item[part == which]) for which in (TRAIN, VALID, TEST)]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert not np.isin(pair[a], pair[b]).any(), f"sets {a} and {b} share an interaction"
