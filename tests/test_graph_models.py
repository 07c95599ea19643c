"""workflow/graph_models.py: one piece a rung, one budget, and LightGCN at the end."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch

import inforec
from inforec.models import REGISTRY


@pytest.fixture
def workflow(monkeypatch):
    for name in ("implicit", "optuna", "threadpoolctl"):
        pytest.importorskip(name, reason="the extra `workflow` is not installed")
    monkeypatch.syspath_prepend(Path(inforec.__file__).parents[2] / "workflow")
    return pytest.importorskip("graph_models")


def test_each_rung_loses_one_piece_and_the_last_is_lightgcn(workflow, tiny):
    rungs = [rung.to_dict()["options"] for rung in workflow.ladder()]
    for above, below in pairwise(rungs):
        assert sum(above[name] != below[name] for name in above) == 1
    (light, *_) = workflow.further([*workflow.ladder(), workflow.MEAN])
    assert light.model == "lightgcn"
    found = []
    for config in (light, workflow.ladder()[-1]):
        torch.manual_seed(0)
        model = REGISTRY[config.model](tiny.train, config.model_config()).train()
        found.append(model.propagated())
    torch.testing.assert_close(*found, rtol=0, atol=1e-6)


def test_every_rung_has_the_same_budget(workflow):
    budgets = [
        {(c.learning_rate, c.epochs, c.batch_size, c.seed) for c in workflow.rates(rung)}
        for rung in [*workflow.ladder(), workflow.MEAN]
    ]
    assert all(budget == budgets[0] for budget in budgets) and len(budgets[0]) == 5
    runs = workflow.further([*workflow.ladder(), workflow.MEAN])
    plain = [c for c in runs if c.model == "ngcf" and not c.alpha]
    assert len(plain) == len(budgets) * workflow.SEEDS
    assert {c.seed for c in plain} == set(range(workflow.SEEDS))
