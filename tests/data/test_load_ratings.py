"""Ratings read and split: the protocol, and what cannot be read."""

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from inforec.data import load_ratings, splits


@pytest.fixture
def folder(write):
    """57 ratings of 8 users and 9 items, in an order of its own."""
    pair = [(3 * n) % 72 for n in range(24)] + [(3 * n + 1) % 72 for n in range(24)]
    pair += [(3 * n + 2) % 72 for n in range(9)]
    columns = {
        "user": [f"u{p // 9}" for p in pair],
        "item": [p % 9 for p in pair],
        "rating": [1.0 + p % 5 for p in pair],
    }
    return write(interactions=columns)


def test_tenth_of_rest_is_a_tenth_and_a_tenth_of_the_others():
    for n, sizes in ((10, (9, 0, 1)), (57, (47, 5, 5)), (1000, (810, 90, 100))):
        part = splits.tenth_of_rest(n, 3)
        assert tuple(np.bincount(part, minlength=3)) == sizes
    assert (splits.tenth_of_rest(1000, 3) == part).all()
    assert (splits.tenth_of_rest(1000, 4) != part).any()


def test_tenth_of_rest_gives_each_place_its_share():
    parts = np.array([splits.tenth_of_rest(20, seed) for seed in range(2000)])
    # Two and one of twenty places; five standard deviations of 2000 draws are 67 and 49.
    assert abs((parts == splits.TEST).sum(0) - 200).max() < 68
    assert abs((parts == splits.VALID).sum(0) - 100).max() < 49


def test_every_rating_is_in_one_of_three_sets(folder):
    ratings = load_ratings(folder, seed=5)
    parts = (ratings.train, ratings.valid, ratings.test)
    assert [len(part) for part in parts] == [47, 5, 5]
    found = {
        (ratings.user_ids[u], ratings.item_ids[i]): r
        for part in parts
        for u, i, r in zip(
            part.user.tolist(), part.item.tolist(), part.rating.tolist(), strict=True
        )
    }
    assert len(found) == 57  # disjoint
    for (user, item), rating in found.items():
        assert rating == 1.0 + (9 * int(user[1:]) + item) % 5
    for part in parts:
        assert (part.num_users, part.num_items) == (8, 9)
        pair = part.user * 9 + part.item
        assert torch.equal(pair, pair.sort().values)


def test_the_split_depends_on_the_seed_and_not_on_the_order_of_the_rows(folder, write):
    first = load_ratings(folder, seed=5)
    path = folder / "interactions.parquet"
    table = pq.read_table(path)
    pq.write_table(table.take(list(range(56, -1, -1))), path)
    again = load_ratings(folder, seed=5)
    assert again.fingerprint == first.fingerprint
    assert load_ratings(folder, seed=6).fingerprint != first.fingerprint
    changed = replace(first.test, rating=first.test.rating.flip(0))
    assert replace(first, test=changed).fingerprint != first.fingerprint  # ratings count


def test_what_has_no_ratings_is_refused(write):
    folder = write(interactions={"user": [0, 1], "item": [0, 1]})
    with pytest.raises(ValueError, match=r"interactions\.parquet with a column 'rating'"):
        load_ratings(folder)


def test_a_given_split_is_refused(write):
    columns = {"user": [0, 1], "item": [0, 1], "rating": [1.0, 2.0]}
    folder = write(train=columns, test={**columns, "item": [1, 0]})
    with pytest.raises(ValueError, match=r"expected one file interactions\.parquet"):
        load_ratings(folder)


def test_too_few_ratings_leave_none_to_test(write):
    folder = write(interactions={"user": [0, 1], "item": [0, 1], "rating": [1.0, 2.0]})
    with pytest.raises(ValueError, match="2 ratings leave none for valid"):
        load_ratings(folder)


def test_a_bad_seed_is_named(folder):
    with pytest.raises(ValueError, match="seed=-1"):
        load_ratings(folder, seed=-1)


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "sizes"), [("ml-100k", (81_000, 9_000, 10_000)), ("ml-1m", (810_171, 90_018, 100_020))]
)
def test_movielens_at_the_protocol(name, sizes):
    try:
        ratings = load_ratings(name)
    except ConnectionError as error:
        pytest.skip(str(error))
    parts = (ratings.train, ratings.valid, ratings.test)
    assert tuple(map(len, parts)) == sizes
    assert set(ratings.train.rating.tolist()) == {1.0, 2.0, 3.0, 4.0, 5.0}
    width = len(ratings.item_ids)
    pairs = torch.cat([part.user * width + part.item for part in parts])
    assert len(pairs.unique()) == sum(sizes)
