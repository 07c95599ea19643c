"""Training batches: what an epoch covers, how negatives are drawn, and that a seed fixes it all.

Shape letters: B rows, T longest row, K negatives, N items.
"""

import math
from collections import Counter

import pytest
import torch

from inforec.batches import (
    ImpressionBatches,
    PairBatches,
    RatingBatches,
    UserBatches,
    epoch_generator,
)
from inforec.types import PAD


def interactions_of(train):
    return sorted(zip(train.user.tolist(), train.item.tolist(), strict=True))


def both_kinds(train, seed=0):
    yield UserBatches(train, 40, seed)
    yield PairBatches(train, 40, seed, negatives=3, popular=False)
    yield PairBatches(train, 40, seed, negatives=3, popular=True)


def content(batches, epoch):
    """Everything an epoch yields, as a list of lists."""
    return [
        [None if t is None else t.tolist() for t in (b.user, b.history, b.items, b.target)]
        for b in batches.epoch(epoch)
    ]


# ---- rows are users -----------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 40, 10**6])
def test_user_batches_cover_every_interaction_once(tiny, batch_size):
    batches = UserBatches(tiny.train, batch_size, 0)
    seen = []
    drawn = list(batches.epoch(1))
    for batch in drawn:
        assert batch.items is None and torch.equal(batch.target, batch.history)
        for user, row in zip(batch.user.tolist(), batch.target.tolist(), strict=True):
            seen += [(user, item) for item in row if item != PAD]
    assert sorted(seen) == interactions_of(tiny.train)
    assert len(drawn) == len(batches)


def test_user_batches_hold_about_batch_size_interactions(tiny):
    sizes = [int((b.target != PAD).sum()) for b in UserBatches(tiny.train, 40, 0).epoch(1)]
    assert sum(sizes[:-1]) / (len(sizes) - 1) == pytest.approx(40, rel=0.25)


def test_users_without_interactions_are_left_out(make_interactions):
    train = make_interactions([(0, 0), (2, 1), (2, 0)], 4, 2)
    users = [u for b in UserBatches(train, 1, 0).epoch(1) for u in b.user.tolist()]
    assert sorted(users) == [0, 2]


def test_user_batches_are_no_wider_than_their_longest_row(tiny):
    for batch in UserBatches(tiny.train, 1, 0).epoch(1):
        assert batch.target.shape == (1, int(tiny.train.user_counts[batch.user[0]]))


# ---- rows are pairs -----------------------------------------------------------------------------


@pytest.mark.parametrize("popular", [False, True])
def test_pair_batches_cover_every_interaction_once(tiny, popular):
    batches = PairBatches(tiny.train, 40, 0, negatives=3, popular=popular)
    drawn = list(batches.epoch(1))
    seen = [
        pair for b in drawn for pair in zip(b.user.tolist(), b.items[:, 0].tolist(), strict=True)
    ]
    assert sorted(seen) == interactions_of(tiny.train)
    assert [len(b.user) for b in drawn[:-1]] == [40] * (len(drawn) - 1)
    assert len(drawn) == len(batches)
    for batch in drawn:
        assert batch.items.shape == (len(batch.user), 4)
        assert batch.target.tolist() == [0] * len(batch.user)
        assert torch.equal(batch.history, tiny.train.history_UT[batch.user])


def test_pair_batches_without_histories_are_otherwise_the_same(tiny):
    settings = {"negatives": 3, "popular": False}
    whole = PairBatches(tiny.train, 40, 0, **settings).epoch(1)
    for batch, other in zip(
        whole, PairBatches(tiny.train, 40, 0, **settings, history=False).epoch(1), strict=True
    ):
        assert other.history is None and torch.equal(batch.items, other.items)


def test_a_negative_is_drawn_again_and_again_until_it_is_not_taken(make_interactions):
    # The stream of draws, one by one: the whole batch, then the taken ones, then those still taken.
    train = make_interactions([(0, i) for i in range(6)] + [(1, 7)], 2, 8)
    taken = set(interactions_of(train))
    (batch,) = PairBatches(train, 100, 3, negatives=5, popular=False).epoch(2)
    generator = epoch_generator(3, 2, torch.device("cpu"))
    torch.randperm(len(train), generator=generator)
    draw = torch.randint(8, (7, 5), generator=generator).flatten().tolist()
    users = batch.user.repeat_interleave(5).tolist()
    while again := [x for x, pair in enumerate(zip(users, draw, strict=True)) if pair in taken]:
        for x, item in zip(
            again, torch.randint(8, (len(again),), generator=generator), strict=True
        ):
            draw[x] = int(item)
    assert batch.items[:, 1:].flatten().tolist() == draw


def test_negatives_are_never_training_items_and_otherwise_uniform(make_interactions):
    # User 0 has taken all but two of eight items, so most first draws must be drawn again.
    train = make_interactions([(0, i) for i in range(6)] + [(1, 7)], 2, 8)
    taken = set(interactions_of(train))
    batches = PairBatches(train, 100, 0, negatives=500, popular=False)
    counts = {0: Counter(), 1: Counter()}
    for batch in batches.epoch(1):
        for user, row in zip(batch.user.tolist(), batch.items[:, 1:].tolist(), strict=True):
            counts[user].update(row)
            assert not any((user, item) in taken for item in row)
        assert batch.log_q is None
    assert set(counts[0]) == {6, 7} and set(counts[1]) == set(range(7))
    for count in counts.values():
        total, share = sum(count.values()), 1 / len(count)
        for n in count.values():
            assert abs(n / total - share) < 5 * math.sqrt(share * (1 - share) / total)


def test_popular_negatives_follow_training_counts(make_interactions):
    train = make_interactions([(u, 0) for u in range(6)] + [(0, 1), (1, 1), (2, 3)], 6, 4)
    batches = PairBatches(train, 100, 0, negatives=2000, popular=True)
    count = Counter(i for b in batches.epoch(1) for i in b.items[:, 1:].flatten().tolist())
    total = sum(count.values())
    for item, wanted in enumerate([6 / 9, 2 / 9, 0.0, 1 / 9]):
        error = 5 * math.sqrt(wanted * (1 - wanted) / total)
        assert abs(count[item] / total - wanted) <= error


def test_log_q_is_the_log_of_the_popularity_and_a_drawn_positive_does_not_count(tiny):
    counts = tiny.train.item_counts.tolist()
    hits = 0
    for batch in PairBatches(tiny.train, 40, 0, negatives=20, popular=True).epoch(1):
        for items, log_q in zip(batch.items.tolist(), batch.log_q.tolist(), strict=True):
            wanted = [math.log(counts[i] / len(tiny.train)) for i in items]
            for column in range(1, 21):
                if items[column] == items[0]:
                    wanted[column] = math.inf
                    hits += 1
            assert log_q == pytest.approx(wanted, rel=1e-5)
    assert hits > 0


def test_a_user_who_has_taken_everything_is_an_error(make_interactions):
    train = make_interactions([(0, 0), (1, 0), (1, 1), (1, 2)], 2, 3)
    with pytest.raises(ValueError, match="user index 1 has taken all 3 items"):
        PairBatches(train, 10, 0, negatives=1, popular=False)
    assert len(PairBatches(train, 10, 0, negatives=1, popular=True)) == 1


# ---- a seed and an epoch fix everything ---------------------------------------------------------


@pytest.mark.parametrize("which", range(3))
def test_an_epoch_depends_on_seed_and_number_alone(tiny, which):
    batches = list(both_kinds(tiny.train))[which]
    third = content(batches, 3)
    fresh = list(both_kinds(tiny.train))[which]
    for epoch in (1, 2):
        content(fresh, epoch)
    torch.rand(5)  # draws elsewhere do not matter
    assert content(fresh, 3) == third
    assert content(batches, 4) != third
    assert content(list(both_kinds(tiny.train, seed=1))[which], 3) != third


def test_drawing_batches_leaves_the_global_generator_alone(tiny):
    torch.manual_seed(0)
    state = torch.get_rng_state()
    for batches in both_kinds(tiny.train):
        content(batches, 1)
    assert torch.equal(torch.get_rng_state(), state)


# ---- labelled rows ------------------------------------------------------------------------------


def test_impression_batches_hold_each_row_once_an_epoch_in_a_new_order(impressions):
    batches = ImpressionBatches(impressions, 64, seed=3)
    assert len(batches) == 4
    epochs = [list(batches.epoch(n)) for n in (1, 2, 1)]
    assert [len(batch.target) for batch in epochs[0]] == [64, 64, 64, 48]

    def rows(epoch):
        columns = [
            torch.cat([b.fields[n] for b in epoch]) for n in ("user", "item", "tags", "hour")
        ]
        columns += [torch.cat([b.target for b in epoch]), torch.cat([b.user for b in epoch])]
        columns += [torch.cat([b.history for b in epoch])]
        return [
            tuple(row) for row in torch.cat([c.view(240, -1).long() for c in columns], 1).tolist()
        ]

    fields, label = impressions.fields, impressions.label
    wanted = torch.cat(
        [
            c.view(240, -1).long()
            for c in (*(fields[n] for n in ("user", "item", "tags", "hour")), label)
        ]
        + [impressions.user[:, None], impressions.history],
        1,
    )
    for epoch in epochs:
        assert sorted(rows(epoch)) == sorted(map(tuple, wanted.tolist()))
    assert rows(epochs[0]) == rows(epochs[2]) != rows(epochs[1])
    other = list(ImpressionBatches(impressions, 64, seed=4).epoch(1))
    assert rows(other) != rows(epochs[0])


@pytest.mark.parametrize("whole", [None, "user", "item"])
def test_rating_batches_hold_each_rating_once_an_epoch_in_a_new_order(ratings, whole):
    batches = RatingBatches(ratings, 10, 3, whole)
    epochs = [list(batches.epoch(n)) for n in (1, 2, 1)]

    def rows(epoch):
        columns = [
            torch.cat([part.flatten().double() for part in parts]).tolist()
            for parts in (
                [b.user for b in epoch],
                [b.items for b in epoch],
                [b.target for b in epoch],
            )
        ]
        return list(zip(*columns, strict=True))

    wanted = sorted(
        zip(ratings.user.tolist(), ratings.item.tolist(), ratings.rating.tolist(), strict=True)
    )
    assert all(sorted(rows(epoch)) == wanted for epoch in epochs)
    assert rows(epochs[0]) == rows(epochs[2]) != rows(epochs[1])
    assert len(epochs[0]) == len(batches)
    assert rows(list(RatingBatches(ratings, 10, 4, whole).epoch(1))) != rows(epochs[0])
    if whole is None:
        assert [len(batch.target) for batch in epochs[0]] == [10, 10, 10, 10, 5]
        return
    # 45 ratings of 11 users, or of 9 items: about 10 ratings are two rows.
    assert len(epochs[0]) == {"user": 6, "item": 5}[whole]
    owners = [
        set(getattr(b, "user" if whole == "user" else "items").flatten().tolist())
        for b in epochs[0]
    ]
    assert sum(map(len, owners)) == len(set.union(*owners))  # no row is in two batches
