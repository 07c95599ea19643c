"""workflow/law_to_list.py against the definitions of its metrics, in plain Python loops."""

import math
from pathlib import Path

import pytest
import torch

import inforec
from inforec.distribution import ItemDistribution

USERS, ITEMS, CATEGORIES = 4, 12, 3


@pytest.fixture
def workflow(monkeypatch):
    for name in ("implicit", "optuna", "threadpoolctl"):
        pytest.importorskip(name, reason="the extra `workflow` is not installed")
    monkeypatch.syspath_prepend(Path(inforec.__file__).parents[2] / "workflow")
    return pytest.importorskip("law_to_list")


def divergence(p, q):
    mixed = [0.99 * b + 0.01 * a for a, b in zip(p, q, strict=True)]
    return sum(a * math.log(a / b) for a, b in zip(p, mixed, strict=True) if a)


def categories(weights, rows):
    return [sum(w * row[c] for w, row in zip(weights, rows, strict=True)) for c in range(3)]


def slow(score, taken, temperature, interest, rows, k):
    """(temperature known) what the law and the list of k of one user are, by definition."""
    left = [i for i in range(ITEMS) if i not in taken]
    total = sum(math.exp(score[i] / temperature) for i in left)
    law = [math.exp(score[i] / temperature) / total if i in left else 0.0 for i in range(ITEMS)]
    best = sorted(left, key=lambda i: -score[i])[:k]
    listed = [1 / k if i in best else 0.0 for i in range(ITEMS)]
    of_law, of_list = categories(law, rows), categories(listed, rows)
    mean = sum(q * s for q, s in zip(law, score, strict=True))
    return {
        "law_kl": divergence(interest, of_law),
        "gap": abs(divergence(interest, of_law) - divergence(interest, of_list)),
        "mass": sum(law[i] for i in best),
        "item_tv": sum(abs(a - b) for a, b in zip(law, listed, strict=True)) / 2,
        "category_tv": sum(abs(a - b) for a, b in zip(of_law, of_list, strict=True)) / 2,
        "mean_score": (mean - sum(score[i] for i in best) / k) / temperature,
        "perplexity": math.exp(-sum(q * math.log(q) for q in law if q)),
    }


def test_the_metrics_are_those_of_their_definitions(workflow):
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    score_BN = 3 * random(USERS, ITEMS)
    exclude_BT = torch.tensor([[0, 5], [7, -1], [-1, -1], [11, 3]])
    category_NC, interest_BC = random(ITEMS, CATEGORIES), random(USERS, CATEGORIES)
    interest_BC[0, 1] = 0.0
    category_NC /= category_NC.sum(1, keepdim=True)
    interest_BC /= interest_BC.sum(1, keepdim=True)
    law = ItemDistribution.from_logits(score_BN, exclude_BT=exclude_BT)
    hidden_BN = score_BN.clone()
    for row, taken in enumerate(exclude_BT.tolist()):
        hidden_BN[row, [i for i in taken if i >= 0]] = -torch.inf
    top_BK = hidden_BN.topk(4, dim=1).indices
    grid = workflow.Grid(perplexities=(2, 5), lengths=(1, 4))
    with torch.no_grad():
        found = dict(workflow._of_laws(law, top_BK, interest_BC, category_NC, 0.5, grid))

    names = ("gap", "mass", "item_tv", "category_tv", "mean_score")
    for row in range(USERS):
        given = (interest_BC[row].tolist(), category_NC.tolist())
        taken = [i for i in exclude_BT[row].tolist() if i >= 0]
        scores = score_BN[row].tolist()
        for perplexity in grid.perplexities:
            temperature = float(found[f"temperature@{perplexity}"][row])
            for k in grid.lengths:
                want = slow(scores, taken, temperature, *given, k)
                assert want["perplexity"] == pytest.approx(perplexity, rel=1e-6)
                assert float(found[f"law_kl@{perplexity}"][row]) == pytest.approx(want["law_kl"])
                for name in names:
                    value = float(found[f"{name}_top{k}@{perplexity}"][row])
                    assert value == pytest.approx(want[name], rel=1e-6, abs=1e-9), name
        own = slow(scores, taken, 0.5, *given, 1)
        assert float(found["own_perplexity"][row]) == pytest.approx(own["perplexity"])
        assert float(found["own_law_kl"][row]) == pytest.approx(own["law_kl"])
        uniform = slow(scores, taken, 1e9, *given, 1)
        assert float(found["catalogue_kl"][row]) == pytest.approx(uniform["law_kl"])
