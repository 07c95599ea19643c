"""Accuracy of lists against slow loops and cases worked by hand.

Shape letters: U users, K list length.
"""

import math

import pytest
import torch

from inforec.metrics import ranking

METRICS = ["recall", "precision", "hit", "ndcg", "mrr"]


def slow(name, hits, relevant):
    """One user's value; hits is a list of booleans, best rank first."""
    if relevant == 0:
        return math.nan
    size, found = len(hits), sum(hits)
    if name == "recall":
        return found / relevant
    if name == "precision":
        return found / size
    if name == "hit":
        return float(found > 0)
    if name == "mrr":
        return next((1 / rank for rank, hit in enumerate(hits, 1) if hit), 0.0)
    dcg = sum(1 / math.log2(rank + 1) for rank, hit in enumerate(hits, 1) if hit)
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(size, relevant) + 1))
    return dcg / ideal


@pytest.mark.parametrize("K", [1, 2, 7])
@pytest.mark.parametrize("name", METRICS)
def test_follows_a_slow_loop(name, K):
    torch.manual_seed(K)
    hit_UK = torch.rand(60, K) < 0.3
    relevant_U = hit_UK.sum(1) + torch.randint(0, 4, (60,))
    relevant_U[0], hit_UK[0] = 0, False
    assert relevant_U.max() > K or K == 7
    ours = getattr(ranking, name)(hit_UK, relevant_U)
    wanted = [slow(name, *row) for row in zip(hit_UK.tolist(), relevant_U.tolist(), strict=True)]
    assert ours.dtype == torch.float64
    assert ours.tolist() == pytest.approx(wanted, rel=1e-12, nan_ok=True)


def test_by_hand():
    hit_UK = torch.tensor([[False, True, False, True], [True, False, False, False]])
    relevant_U = torch.tensor([3, 6])
    assert ranking.recall(hit_UK, relevant_U).tolist() == pytest.approx([2 / 3, 1 / 6])
    assert ranking.precision(hit_UK, relevant_U).tolist() == [0.5, 0.25]
    assert ranking.hit(hit_UK, relevant_U).tolist() == [1.0, 1.0]
    assert ranking.mrr(hit_UK, relevant_U).tolist() == [0.5, 1.0]
    log3, log5 = math.log2(3), math.log2(5)
    ideal3, ideal4 = 1 + 1 / log3 + 0.5, 1 + 1 / log3 + 0.5 + 1 / log5
    wanted = [(1 / log3 + 1 / log5) / ideal3, 1 / ideal4]
    assert ranking.ndcg(hit_UK, relevant_U).tolist() == pytest.approx(wanted)


@pytest.mark.parametrize("name", METRICS)
def test_a_user_with_nothing_to_find_is_undefined_not_zero(name):
    ours = getattr(ranking, name)(torch.zeros(2, 3, dtype=torch.bool), torch.tensor([0, 2]))
    assert math.isnan(ours[0]) and ours[1] == 0.0


@pytest.mark.parametrize("name", METRICS)
def test_a_perfect_list_has_the_value_one(name):
    hit_UK = torch.ones(1, 4, dtype=torch.bool)
    assert getattr(ranking, name)(hit_UK, torch.tensor([4])).tolist() == [1.0]


def test_ndcg_of_a_list_shorter_than_the_truth_can_reach_one():
    ours = ranking.ndcg(torch.ones(1, 2, dtype=torch.bool), torch.tensor([50]))
    assert ours.tolist() == pytest.approx([1.0])
