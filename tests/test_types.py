"""Interactions: counts and the table of histories; the positives of a batch."""

import pytest
import torch

from inforec.batches import PairBatches, UserBatches
from inforec.types import PAD, Batch, Interactions


def test_history_is_in_time_order_and_padded_at_the_end(make_interactions):
    pairs = [(2, 7), (0, 5), (2, 1), (0, 3), (2, 4)]
    table = make_interactions(pairs, 4, 8, time=[30, 20, 10, 10, 20])
    expected = [[3, 5, PAD], [PAD, PAD, PAD], [1, 4, 7], [PAD, PAD, PAD]]
    assert table.history_UT.tolist() == expected


def test_history_without_time_keeps_the_order_of_the_rows(make_interactions):
    table = make_interactions([(1, 7), (0, 5), (1, 1), (1, 4)], 2, 8)
    assert table.history_UT.tolist() == [[5, PAD, PAD], [7, 1, 4]]


def test_equal_times_keep_the_order_of_the_rows(make_interactions):
    table = make_interactions([(0, 6), (0, 2), (0, 4)], 1, 8, time=[5, 5, 1])
    assert table.history_UT.tolist() == [[4, 6, 2]]


def test_history_of_an_empty_split_has_no_column(make_interactions):
    assert make_interactions([], 3, 4).history_UT.shape == (3, 0)


def test_history_agrees_with_a_slow_loop(tiny):
    for user, row in enumerate(tiny.train.history_UT.tolist()):
        wanted = [
            i
            for u, i in zip(tiny.train.user.tolist(), tiny.train.item.tolist(), strict=True)
            if u == user
        ]
        assert row == wanted + [PAD] * (len(row) - len(wanted))


def test_counts_include_those_without_interactions(make_interactions):
    table = make_interactions([(0, 2), (0, 1), (2, 1)], 4, 5)
    assert table.user_counts.tolist() == [2, 0, 1, 0]
    assert table.item_counts.tolist() == [0, 2, 1, 0, 0]
    assert len(table) == 3


def test_to_moves_every_tensor():
    table = Interactions(
        torch.tensor([0]), torch.tensor([1]), 1, 2, torch.tensor([4.0]), torch.tensor([9])
    ).to("meta")
    moved = (table.user, table.item, table.rating, table.time)
    assert [tensor.device.type for tensor in moved] == ["meta"] * 4


@pytest.mark.parametrize(
    "user, item",
    [
        (torch.tensor([0, 1]), torch.tensor([0])),
        (torch.tensor([[0]]), torch.tensor([[0]])),
        (torch.tensor([0], dtype=torch.int32), torch.tensor([0], dtype=torch.int32)),
    ],
)
def test_wrong_columns_break_an_invariant(user, item):
    with pytest.raises(AssertionError):
        Interactions(user, item, 2, 2)


def test_positives_are_distinct_and_without_padding():
    user = torch.tensor([3, 1])
    whole = Batch(user, target=torch.tensor([[7, 2, PAD], [2, 9, 4]]))
    assert whole.positives().tolist() == [2, 4, 7, 9]
    chosen = Batch(user, items=torch.tensor([[5, 8, 1], [6, 5, 3]]), target=torch.tensor([2, 1]))
    assert chosen.positives().tolist() == [1, 5]
    one = Batch(user, target=torch.tensor([6, 6]))
    assert one.positives().tolist() == [6]


def test_positives_of_both_kinds_of_batches(tiny):
    """Over an epoch, every item that somebody took, and no other."""
    wanted = set(tiny.train.item.tolist())
    pairs = PairBatches(tiny.train, 16, 0, negatives=3, popular=True)
    for batches in (UserBatches(tiny.train, 16, 0), pairs):
        seen = [set(batch.positives().tolist()) for batch in batches.epoch(1)]
        assert set().union(*seen) == wanted and len(seen) > 1
