"""Out of memory is told from other errors, and answered by smaller blocks with the same result."""

import itertools

import pytest
import torch

from inforec import evaluate
from inforec.memory import in_blocks, out_of_memory
from inforec.models import REGISTRY
from inforec.models.base import DotProduct, Ranker


def allocate(rows, most):
    """What the allocator of the CPU says to more than ``most`` rows."""
    if rows > most:
        torch.empty(2**50)


def test_the_errors_of_allocators_are_known():
    with pytest.raises(RuntimeError) as caught:
        allocate(2, 1)
    assert out_of_memory(caught.value)
    assert out_of_memory(MemoryError()) and out_of_memory(torch.OutOfMemoryError("CUDA"))
    assert not out_of_memory(RuntimeError("shapes")) and not out_of_memory(ValueError("memory"))


@pytest.mark.parametrize("size", [1, 3, 10, 11])
def test_blocks_cover_the_rows_in_order(size):
    blocks = list(in_blocks(lambda block: list(range(10)[block]), 10, size))
    assert [*itertools.chain(*blocks)] == list(range(10)) and max(map(len, blocks)) <= size


def test_a_block_that_does_not_fit_is_halved_and_the_next_ones_are_small():
    asked = []

    def function(block):
        asked.append((block.start, block.stop))
        allocate(block.stop - block.start, 3 if block.start < 6 else 1)
        return block

    with pytest.warns(RuntimeWarning) as said:
        list(in_blocks(function, 8, 8))
    assert asked == [(0, 8), (0, 4), (0, 2), (2, 4), (4, 6), (6, 8), (6, 7), (7, 8)]
    texts = [str(warning.message).split(",")[0] for warning in said]
    assert texts == [
        "out of memory with a block of 8 rows: going on with 2",
        "out of memory with a block of 2 rows: going on with 1",
    ]


def test_one_row_that_does_not_fit_and_other_errors_are_raised():
    with pytest.warns(RuntimeWarning), pytest.raises(RuntimeError, match="can't allocate memory"):
        list(in_blocks(lambda block: allocate(block.stop, 2), 8, 8))
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        list(in_blocks(lambda block: torch.ones(2) @ torch.ones(3), 8, 8))


class Scores(Ranker):
    """Scores at most ``most`` users at once."""

    def __init__(self, score_UN, most):
        torch.nn.Module.__init__(self)
        self.score_UN, self.most = score_UN, most

    def score(self, query):
        allocate(len(query.user), self.most)
        return self.score_UN[query.user]


class Vectors(DotProduct):
    """Embeds at most ``most`` users at once."""

    def __init__(self, user_UD, item_ND, most):
        torch.nn.Module.__init__(self)
        self.user_UD, self.item_ND, self.most = user_UD, item_ND, most

    def embed(self, query):
        allocate(len(query.user), self.most)
        return self.user_UD[query.user], self.item_ND


def test_a_ranking_in_halved_blocks_is_the_same(tiny):
    torch.manual_seed(0)
    user_UD, item_ND = torch.randn(tiny.num_users, 4), torch.randn(tiny.num_items, 4)
    for make in (
        lambda most: Scores(user_UD @ item_ND.T, most),
        lambda most: Vectors(user_UD, item_ND, most),
    ):
        whole = evaluate.evaluate(make(1000), tiny, (5,))
        with pytest.warns(RuntimeWarning, match="out of memory with a block of 24 rows: .* 3, wh"):
            halved = evaluate.evaluate(make(5), tiny, (5,))
        assert halved[0] == whole[0] and torch.equal(halved[1], whole[1])


def test_clicks_in_halved_blocks_are_the_same(impressions):
    torch.manual_seed(0)
    model = REGISTRY["fm"](impressions)
    whole = evaluate.evaluate_clicks(model, impressions)
    model.register_forward_pre_hook(lambda module, given: allocate(len(given[0].target), 100))
    with pytest.warns(RuntimeWarning, match="a block of 240 rows: going on with 60"):
        halved = evaluate.evaluate_clicks(model, impressions)
    torch.testing.assert_close(halved[1], whole[1])
    assert halved[0] == pytest.approx(whole[0])
