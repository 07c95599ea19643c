"""Diversity against slow loops over the definitions.

Shape letters: U users, K list length, N items, C categories.
"""

import itertools
import math
from collections import Counter

import pytest
import torch

from inforec.metrics import diversity

N, C = 12, 3
TOP = torch.tensor([[0, 5, 3, 9], [5, 1, 0, -1], [2, -1, -1, -1], [-1, -1, -1, -1], [5, 0, 9, 8]])


@pytest.fixture
def category_NC():
    torch.manual_seed(0)
    rows = (torch.rand(N, C) < 0.5).float()
    rows[:, 0] += (rows.sum(1) == 0).float()
    return rows / rows.sum(1, keepdim=True)


def lists():
    return [[i for i in row if i >= 0] for row in TOP.tolist()]


def test_exposure_counts_items_and_no_empty_place():
    count = Counter(itertools.chain(*lists()))
    assert diversity.exposure(TOP, N).tolist() == [count[i] for i in range(N)]


def test_coverage_is_the_share_of_items_shown():
    shown = set(itertools.chain(*lists()))
    exposure_N = diversity.exposure(TOP, N)
    assert diversity.coverage(exposure_N) == pytest.approx(len(shown) / N)
    assert diversity.coverage(torch.zeros(5)) == 0.0


@pytest.mark.parametrize("seed", range(3))
def test_gini_is_half_the_relative_mean_difference(seed):
    torch.manual_seed(seed)
    exposure_N = torch.randint(0, 9, (17,))
    x = exposure_N.tolist()
    slow = sum(abs(a - b) for a in x for b in x) / (2 * len(x) * sum(x))
    assert diversity.gini(exposure_N) == pytest.approx(slow, rel=1e-12)


def test_gini_known_values():
    assert diversity.gini(torch.full((8,), 3)) == pytest.approx(0.0, abs=1e-15)
    assert diversity.gini(torch.tensor([0, 0, 0, 7])) == pytest.approx(0.75)  # 1 - 1 / N
    assert math.isnan(diversity.gini(torch.zeros(4)))


def test_item_entropy_follows_the_definition():
    exposure_N = diversity.exposure(TOP, N)
    total = int(exposure_N.sum())
    slow = -sum(n / total * math.log(n / total) for n in exposure_N.tolist() if n)
    assert diversity.item_entropy(exposure_N) == pytest.approx(slow, rel=1e-12)
    assert diversity.item_entropy(torch.full((8,), 3)) == pytest.approx(math.log(8))
    assert diversity.item_entropy(torch.tensor([0, 4, 0])) == 0.0


def test_novelty_follows_the_definition():
    count_N = torch.tensor([9, 0, 3, 1, 1, 20, 2, 2, 5, 4, 0, 1])
    total = int(count_N.sum()) + N
    ours = diversity.novelty(TOP, count_N).tolist()
    for value, items in zip(ours, lists(), strict=True):
        if not items:
            assert math.isnan(value)
            continue
        slow = sum(-math.log((count_N[i].item() + 1) / total) for i in items) / len(items)
        assert value == pytest.approx(slow, rel=1e-12)


def test_ild_is_the_mean_over_pairs(category_NC):
    rows = category_NC.double().tolist()

    def cosine(a, b):
        dot = sum(x * y for x, y in zip(a, b, strict=True))
        return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))

    for value, items in zip(diversity.ild(TOP, category_NC).tolist(), lists(), strict=True):
        pairs = list(itertools.combinations(items, 2))
        if not pairs:
            assert math.isnan(value)
            continue
        slow = sum(1 - cosine(rows[a], rows[b]) for a, b in pairs) / len(pairs)
        assert value == pytest.approx(slow, abs=1e-12)


def test_ild_known_values():
    category_NC = torch.eye(3)[[0, 1, 2, 0]]
    alike, apart = torch.tensor([[0, 3]]), torch.tensor([[0, 1, 2]])
    assert diversity.ild(alike, category_NC).tolist() == pytest.approx([0.0])
    assert diversity.ild(apart, category_NC).tolist() == pytest.approx([1.0])


def test_the_law_of_a_list_over_categories_is_the_mean_of_its_rows(category_NC):
    ours = diversity.list_categories(TOP, category_NC)
    assert ours.dtype == torch.float64
    for law, items in zip(ours.tolist(), lists(), strict=True):
        if not items:
            assert all(math.isnan(q) for q in law)
            continue
        for c in range(C):
            slow = sum(category_NC[i, c].item() for i in items) / len(items)
            assert law[c] == pytest.approx(slow, rel=1e-12)


def test_category_entropy_follows_the_definition(category_NC):
    law_UC = diversity.list_categories(TOP, category_NC)
    for value, law in zip(
        diversity.category_entropy(law_UC).tolist(), law_UC.tolist(), strict=True
    ):
        slow = -sum(q * math.log(q) for q in law if q)
        assert value == pytest.approx(slow, rel=1e-12, nan_ok=True)
    uniform = torch.full((1, 5), 0.2, dtype=torch.float64)
    assert diversity.category_entropy(uniform).tolist() == pytest.approx([math.log(5)])
