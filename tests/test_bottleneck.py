"""workflow/bottleneck.py against the definitions of its figures, in plain Python loops."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import inforec
from inforec import results
from inforec.models import REGISTRY

DRAWS = 3


@pytest.fixture
def workflow(monkeypatch):
    for name in ("implicit", "optuna", "threadpoolctl"):
        pytest.importorskip(name, reason="the extra `workflow` is not installed")
    monkeypatch.syspath_prepend(Path(inforec.__file__).parents[2] / "workflow")
    return pytest.importorskip("bottleneck")


def density(z, mean, log_variance):
    """Of the Gaussian code, with its constant."""
    return math.prod(
        math.exp(-((a - m) ** 2) / (2 * math.exp(v))) / math.sqrt(2 * math.pi * math.exp(v))
        for a, m, v in zip(z, mean, log_variance, strict=True)
    )


def test_the_figures_are_those_of_their_definitions(workflow, tiny):
    torch.manual_seed(1)
    config = REGISTRY["multvae"].Config(hidden=6, dim=2)
    model = REGISTRY["multvae"](tiny.train, config).eval().double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.8)
        model.code.weight[1] = model.code.bias[1] = 0.0  # the second coordinate is the prior
        model.code.weight[3] = model.code.bias[3] = 0.0
        found = workflow.codes_and_laws(model, tiny, DRAWS)
        mean_UD, v_UD = model.encode(tiny.train.history_UT)
        noise_SUD = torch.randn(
            DRAWS, *mean_UD.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64
        )
        code_SUD = mean_UD + (v_UD / 2).exp() * noise_SUD

        def laws(code_UD):
            query_UX, item_NX = model.decode(code_UD)
            return (query_UX @ item_NX.T).softmax(1).tolist()

        drawn, served = [laws(code_UD) for code_UD in code_SUD], laws(mean_UD)

    users, size = range(tiny.num_users), tiny.num_users
    codes = list(zip(mean_UD.tolist(), v_UD.tolist(), strict=True))
    rate = sum(
        sum((m * m + math.exp(v) - 1 - v) / 2 for m, v in zip(*code, strict=True)) for code in codes
    )
    assert found["rate"] == pytest.approx(rate / size) and rate / size > 0.1
    assert found["active"] == 1
    values = [
        math.log(density(z, *codes[u]) / (sum(density(z, *code) for code in codes) / size))
        for code_UD in code_SUD.tolist()
        for u, z in enumerate(code_UD)
    ]
    mean = sum(values) / len(values)
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))
    assert found["information"] == pytest.approx(mean, rel=1e-9) and mean > 0.1
    assert found["information_error"] == pytest.approx(spread / math.sqrt(len(values)))
    average = [sum(served[u][i] for u in users) / size for i in range(tiny.num_items)]
    between = sum(
        q * math.log(q / a) for u in users for q, a in zip(served[u], average, strict=True)
    )
    assert found["item_information"] == pytest.approx(between / size) and between / size > 0.02
    for name in ("train", "valid", "test"):
        part = getattr(tiny, name)
        pairs = list(zip(part.user.tolist(), part.item.tolist(), strict=True))
        total = sum(-math.log(law[u][i]) for law in drawn for u, i in pairs)
        assert found[f"distortion_{name}"] == pytest.approx(total / (DRAWS * len(pairs)))


def test_a_record_is_made_once_and_reads_the_trained_model(workflow, tiny_folder, tmp_path):
    config = replace(
        workflow.LAST,
        dataset=str(tiny_folder),
        options={"hidden": 6, "dim": 2, "weight": 0.1, "anneal": 0},
        epochs=2,
        validate_every=2,
        k=5,
        candidates=12,
    )
    folder, training = tmp_path / "bottleneck", tmp_path / "bottleneck-train"
    record = workflow.measure(config, folder, training)
    (trained,) = results.load(training)
    assert record.law["nll_test"] == trained.law["nll_test"] and record.test == trained.test
    # Of the same model: with a code of little spread the draws are near to the mean.
    assert record.law["distortion_test"] == pytest.approx(record.law["nll_test"], rel=0.2)
    assert record.config["bottleneck"] == {"draws": workflow.DRAWS, "active": workflow.ACTIVE}
    again = workflow.measure(config, folder, training)
    assert again.found and again.law == record.law


def test_the_grid_has_every_weight_rule_and_alpha(workflow):
    configs = workflow.configs()
    ids = {results.run_id(config.to_dict()) for config in configs}
    settings = len(workflow.WEIGHTS) + len(workflow.ALPHAS) + len(workflow.BEST_WEIGHTS)
    assert len(ids) == len(configs) == workflow.SEEDS * settings
    assert workflow.ALPHA_WEIGHT in workflow.WEIGHTS  # where alpha is 0
    assert {c.validate_every for c in configs if c.alpha} == {workflow.LAST.epochs}
