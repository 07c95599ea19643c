"""Metrics of single predictions against slow definitions.

Shape letters: E predictions.
"""

import math

import pytest
import torch

from inforec.metrics import pointwise


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def slow_auc(logits, labels):
    wins = [
        1.0 if p > n else 0.5 if p == n else 0.0
        for p, good in zip(logits, labels, strict=True)
        if good
        for n, other in zip(logits, labels, strict=True)
        if not other
    ]
    return sum(wins) / len(wins) if wins else math.nan


@pytest.fixture(params=range(3))
def clicks(request):
    """Logits with many ties, labels, users; the last user has clicks only."""
    torch.manual_seed(request.param)
    logit_E = torch.randint(-4, 5, (60,)).float() / 2
    label_E = (torch.rand(60) < 0.4).float()
    user_E = torch.randint(0, 6, (60,))
    label_E[user_E == 5] = 1.0
    return logit_E, label_E, user_E


def test_auc_counts_pairs_and_ties_by_half(clicks):
    logit_E, label_E, _ = clicks
    slow = slow_auc(logit_E.tolist(), label_E.tolist())
    assert pointwise.auc(logit_E, label_E) == pytest.approx(slow, rel=1e-12)


def test_auc_known_values():
    up = torch.tensor([-1.0, 0.0, 2.0, 3.0])
    labels = torch.tensor([0, 0, 1, 1])
    assert pointwise.auc(up, labels) == 1.0
    assert pointwise.auc(-up, labels) == 0.0
    assert pointwise.auc(torch.zeros(4), labels) == 0.5
    assert math.isnan(pointwise.auc(up, torch.ones(4)))
    assert math.isnan(pointwise.auc(up, torch.zeros(4)))


def test_gauc_weighs_users_by_their_predictions(clicks):
    logit_E, label_E, user_E = clicks
    total, weight = 0.0, 0
    for user in range(6):
        rows = [e for e in range(60) if user_E[e] == user]
        value = slow_auc([logit_E[e].item() for e in rows], [label_E[e].item() for e in rows])
        if not math.isnan(value):
            total, weight = total + value * len(rows), weight + len(rows)
    assert 0 < weight < 60
    assert pointwise.gauc(logit_E, label_E, user_E) == pytest.approx(total / weight, rel=1e-12)


def test_gauc_of_users_with_one_class_only_is_undefined():
    assert math.isnan(
        pointwise.gauc(torch.tensor([0.0, 1.0]), torch.tensor([0, 1]), torch.tensor([0, 1]))
    )


def test_logloss_follows_the_definition(clicks):
    logit_E, label_E, _ = clicks
    slow = 0.0
    for x, y in zip(logit_E.tolist(), label_E.tolist(), strict=True):
        slow -= math.log(sigmoid(x) if y else 1 - sigmoid(x)) / 60
    assert pointwise.logloss(logit_E, label_E) == pytest.approx(slow, rel=1e-12)
    assert pointwise.logloss(torch.tensor([-800.0]), torch.tensor([1.0])) == 800.0


@pytest.mark.parametrize("bins", [1, 4, 15])
def test_ece_follows_the_definition(clicks, bins):
    _, label_E, _ = clicks
    logit_E = torch.linspace(-5, 6, 60)
    slow = 0.0
    for b in range(bins):
        inside = [
            (sigmoid(x), y)
            for x, y in zip(logit_E.tolist(), label_E.tolist(), strict=True)
            if b / bins <= sigmoid(x) < (b + 1) / bins
        ]
        if inside:
            confidence = sum(p for p, _ in inside) / len(inside)
            accuracy = sum(y for _, y in inside) / len(inside)
            slow += len(inside) / 60 * abs(accuracy - confidence)
    assert pointwise.ece(logit_E, label_E, bins=bins) == pytest.approx(slow, rel=1e-9)


def test_ece_known_values():
    sure = torch.tensor([100.0, 100.0, -100.0])  # probabilities 1, 1 and 0: the last bin is closed
    assert pointwise.ece(sure, torch.tensor([1.0, 1.0, 0.0])) == pytest.approx(0.0, abs=1e-12)
    assert pointwise.ece(sure, torch.tensor([0.0, 0.0, 1.0])) == pytest.approx(1.0)
    half = torch.zeros(4)
    assert pointwise.ece(half, torch.tensor([0.0, 1.0, 1.0, 0.0])) == pytest.approx(0.0)


def test_rating_errors_follow_the_definition():
    prediction_E, rating_E = torch.tensor([3.5, 4.0, 1.0]), torch.tensor([3.0, 5.0, 3.0])
    assert pointwise.rmse(prediction_E, rating_E) == pytest.approx(math.sqrt(5.25 / 3))
    assert pointwise.mae(prediction_E, rating_E) == pytest.approx(3.5 / 3)
