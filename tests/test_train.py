"""The training loop: golden curves, the best weights, stopping, and what it must refuse.

The golden curves in tests/golden hold every epoch's loss and terms at full precision. A change that
should not change results must leave them; one that should is recorded with

    INFOREC_WRITE_GOLDEN=1 pytest tests/test_train.py -k golden

and the difference is explained where it is committed.
"""

import json
import math
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from inforec import losses, regularizers
from inforec.batches import PairBatches, UserBatches
from inforec.data import Dataset
from inforec.distribution import ItemDistribution
from inforec.evaluate import evaluate
from inforec.models import REGISTRY, Recommender
from inforec.train import (
    FitConfig,
    NonFiniteLossError,
    Objective,
    Regularizer,
    choose_device,
    fit,
)
from inforec.types import Output

GOLDEN = Path(__file__).parent / "golden"
SOFTMAX = Objective(
    "softmax",
    lambda output, batch: losses.softmax(output.distribution.with_temperature(0.5), output.target),
)
BPR = Objective("bpr", lambda output, batch: losses.bpr(output.logits[:, 0], output.logits[:, 1:]))


def quiet(**settings):
    return FitConfig(
        **{"device": "cpu", "progress": False, "monitor": "ndcg@5", "epochs": 5, **settings}
    )


def terms(data, alpha=0.2, beta=0.05):
    def category_kl(output, batch):
        law = output.distribution.with_temperature(0.5)
        return regularizers.category_kl(law, data.interest_UC[batch.user], data.category_NC)

    def entropy(output, batch):
        return regularizers.entropy(output.distribution.with_temperature(0.5))

    return {
        "category_kl": Regularizer(alpha, category_kl),
        "entropy": Regularizer(-beta, entropy),
    }


def validation(data):
    return lambda model: evaluate(model, data, (5,), "valid")[0]


def build(name, data, **options):
    torch.manual_seed(7)
    return REGISTRY[name](data.train, REGISTRY[name].Config(**options))


# ---- golden curves ------------------------------------------------------------------------------


def family(name, data):
    """(model, batches, objective, regularisers) of one golden curve."""
    if name == "mf-bpr":
        batches = PairBatches(data.train, 32, 3, negatives=1, popular=False)
        return build("mf", data, dim=8), batches, BPR, {}
    batches = UserBatches(data.train, 32, 3)
    if name == "mf-softmax":
        return build("mf", data, dim=8), batches, SOFTMAX, {}
    return build("lightgcn", data, dim=8, layers=2), batches, SOFTMAX, terms(data)


@pytest.mark.parametrize("name", ["mf-bpr", "mf-softmax", "lightgcn-softmax-alpha-beta"])
def test_golden_curve(name, tiny):
    model, batches, objective, regularizers = family(name, tiny)
    config = quiet(learning_rate=0.02, weight_decay=1e-4, validate_every=5)
    history = fit(
        model, batches, objective, config, regularizers=regularizers, validate=validation(tiny)
    )
    curve = [
        {key: entry[key] for key in ("epoch", "loss", "terms", "valid") if key in entry}
        for entry in history
    ]
    path = GOLDEN / f"{name}.json"
    if os.environ.get("INFOREC_WRITE_GOLDEN"):
        path.write_text(json.dumps(curve, indent=1) + "\n")
    golden = json.loads(path.read_text())
    assert [entry["epoch"] for entry in curve] == [entry["epoch"] for entry in golden]
    for entry, wanted in zip(curve, golden, strict=True):
        assert entry["loss"] == pytest.approx(wanted["loss"], rel=1e-5)
        for kind in ("terms", "valid"):
            assert entry.get(kind, {}) == pytest.approx(wanted.get(kind, {}), rel=1e-5)


# ---- the objective ------------------------------------------------------------------------------


def test_the_loss_is_the_weighted_sum_of_its_terms(tiny):
    history = fit(
        build("mf", tiny, dim=4),
        UserBatches(tiny.train, 32, 0),
        SOFTMAX,
        quiet(epochs=3),
        regularizers=terms(tiny, alpha=0.3, beta=0.07),
    )
    for entry in history:
        parts = entry["terms"]
        assert set(parts) == {"softmax", "category_kl", "entropy"}
        wanted = parts["softmax"] + 0.3 * parts["category_kl"] - 0.07 * parts["entropy"]
        assert entry["loss"] == pytest.approx(wanted, rel=1e-5)
        assert entry["seconds"] > 0 and "valid" not in entry


class Line(Recommender):
    """One weight w; the objective below pulls it, its own term adds w squared."""

    def __init__(self, start=1.0):
        nn.Module.__init__(self)
        self.w = nn.Parameter(torch.tensor(start))
        self.started, self.epochs = 0, []

    def forward(self, batch):
        return Output(logits=self.w[None, None], aux={"square": self.w.square()})

    def on_fit_start(self):
        self.started += 1

    def on_epoch_start(self, epoch):
        self.epochs.append((epoch, self.training))


class Steps:
    """``number`` batches an epoch that hold nothing."""

    def __init__(self, number=1):
        self.number = number

    def epoch(self, epoch):
        return iter([None] * self.number)


PULL = Objective("pull", lambda output, batch: output.logits.sum())


def test_the_terms_of_the_model_itself_are_added():
    entry = fit(Line(3.0), Steps(), PULL, quiet(epochs=1))[0]
    assert entry["loss"] == pytest.approx(3.0 + 9.0)
    assert entry["terms"] == pytest.approx({"square": 9.0, "pull": 3.0})


def test_one_epoch_is_adam_on_the_whole_objective():
    """Gradients do not add up from step to step: the weights are those of a loop with Adam."""
    model, twin = Line(3.0), nn.Parameter(torch.tensor(3.0))
    fit(model, Steps(4), PULL, quiet(epochs=2, learning_rate=0.1, weight_decay=0.5))
    adam = torch.optim.Adam([twin], lr=0.1, weight_decay=0.5)
    for _ in range(8):
        adam.zero_grad()
        (twin + twin.square()).backward()
        adam.step()
    assert model.w.item() == pytest.approx(twin.item(), rel=1e-6)


def test_weight_decay_pulls_towards_zero():
    ends = []
    for weight_decay in (0.0, 100.0):
        model = Line(3.0)
        flat = Objective(
            "flat", lambda output, batch: 0 * output.logits.sum() - output.aux["square"]
        )
        fit(model, Steps(20), flat, quiet(epochs=1, learning_rate=0.1, weight_decay=weight_decay))
        ends.append(model.w.item())
    assert ends[0] == 3.0 and ends[1] < 1.5


def test_hooks_are_called_in_training_mode_and_the_model_ends_in_evaluation_mode():
    model = Line()
    fit(model, Steps(), PULL, quiet(epochs=3))
    assert model.started == 1
    assert model.epochs == [(1, True), (2, True), (3, True)]
    assert not model.training


# ---- validation ---------------------------------------------------------------------------------


def scripted(values, seen):
    """A validation that gives these values in turn and keeps the weight it saw."""
    left = iter(values)

    def validate(model):
        assert not model.training
        seen.append(model.w.item())
        return {"ndcg@5": next(left)}

    return validate


def test_the_best_validated_weights_are_restored():
    model, seen = Line(), []
    fit(
        model,
        Steps(),
        PULL,
        quiet(epochs=5, validate_every=1),
        validate=scripted([0.1, 0.4, 0.3, 0.2, 0.1], seen),
    )
    assert len(set(seen)) == 5
    assert model.w.item() == seen[1]


def test_without_validation_the_last_weights_are_kept():
    weights = []
    model = Line()
    fit(model, Steps(), PULL, quiet(), callbacks=[lambda entry: weights.append(model.w.item())])
    assert len(set(weights)) == 5 and model.w.item() == weights[-1]


def test_patience_stops_after_that_many_validations_without_a_better_value():
    history = fit(
        Line(),
        Steps(),
        PULL,
        quiet(epochs=50, validate_every=2, patience=3),
        validate=scripted([0.1, 0.4, 0.3, 0.4, 0.1, 0.9], []),
    )
    # Validated in epochs 2, 4 (best), 6, 8 (equal is not better), 10.
    assert history[-1]["epoch"] == 10
    assert [entry["epoch"] for entry in history if "valid" in entry] == [2, 4, 6, 8, 10]


def test_the_last_epoch_is_always_validated():
    history = fit(
        Line(), Steps(), PULL, quiet(epochs=5, validate_every=3), validate=scripted([0.1, 0.2], [])
    )
    assert [entry["epoch"] for entry in history if "valid" in entry] == [3, 5]


def test_callbacks_get_every_entry_of_the_history_in_turn():
    got, also = [], []
    history = fit(Line(), Steps(), PULL, quiet(), callbacks=[got.append, also.append])
    assert got == also == history and [entry["epoch"] for entry in history] == [1, 2, 3, 4, 5]


def test_no_epochs_leave_the_model_as_it_is():
    model = Line(3.0)
    assert fit(model, Steps(), PULL, quiet(epochs=0)) == []
    assert model.w.item() == 3.0


@pytest.mark.parametrize(("maximise", "best"), [(True, 2), (False, 3)])
def test_the_best_value_is_the_highest_or_the_lowest(tiny, maximise, best):
    """Validations go 0.5, 0.7, 0.4, 0.5, ...: the weights of the best come back."""
    values, weights = iter([0.5, 0.7, 0.4, 0.5, 0.6]), []

    def validate(model):
        weights.append(model.user_UD.weight.detach().clone())
        return {"ndcg@5": next(values)}

    model = build("mf", tiny, dim=4)
    fit(
        model,
        UserBatches(tiny.train, 64, 0),
        SOFTMAX,
        quiet(validate_every=1, patience=2, maximise=maximise),
        validate=validate,
    )
    assert len(weights) == best + 2  # two without a better one end it
    assert torch.equal(model.user_UD.weight, weights[best - 1])


@pytest.mark.parametrize("name", ["popularity", "itemknn", "ease"])
def test_a_closed_form_is_solved_and_validated_once(name, tiny):
    model, seen = build(name, tiny), []
    history = fit(model, None, SOFTMAX, quiet(), validate=validation(tiny), callbacks=[seen.append])
    assert seen == history and len(history) == 1
    entry = history[0]
    assert (entry["epoch"], entry["loss"], entry["terms"]) == (0, None, {})
    assert entry["valid"] == evaluate(model, tiny, (5,), "valid")[0]


class NoTest(Dataset):
    """A data set that nobody may test on."""

    @property
    def test(self):
        raise AssertionError("training has looked at the test data")

    @test.setter
    def test(self, value):
        pass


def test_training_never_sees_test_data(tiny):
    fields = {name: getattr(tiny, name) for name in Dataset.__dataclass_fields__}
    hidden = object.__new__(NoTest)
    hidden.__dict__.update({k: v for k, v in fields.items() if k != "test"})
    with pytest.raises(AssertionError, match="looked at the test data"):
        evaluate(build("popularity", tiny), hidden, (5,), "test")
    history = fit(
        build("mf", tiny, dim=4),
        UserBatches(hidden.train, 32, 0),
        SOFTMAX,
        quiet(validate_every=1),
        regularizers=terms(hidden),
        validate=validation(hidden),
    )
    assert len(history) == 5 and all("valid" in entry for entry in history)


# ---- what stops it ------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_stops_before_the_step_and_names_every_term(tiny, value):
    model = build("mf", tiny, dim=4)
    calls, before = [], {}

    def breaks(output, batch):
        calls.append(None)
        if len(calls) == 3:
            before.update({name: p.clone() for name, p in model.state_dict().items()})
            return torch.full((len(batch.user),), value)
        return 0 * output.distribution.entropy()

    further = {**terms(tiny), "broken": Regularizer(2.0, breaks)}
    batches = UserBatches(tiny.train, len(tiny.train) // 2, 0)
    assert len(batches) == 2  # the third step is the first of epoch 2
    with pytest.raises(NonFiniteLossError) as caught:
        fit(model, batches, SOFTMAX, quiet(), regularizers=further)
    message = str(caught.value)
    assert f"loss = {value:g} in epoch 2, step 1" in message
    for name in ("category_kl", "entropy", "softmax"):
        number = message.split(f"{name} = ")[1].split(",")[0].split(". ")[0]
        assert math.isfinite(float(number))
    assert f"broken = {value:g}" in message
    assert before and all(torch.equal(before[name], p) for name, p in model.state_dict().items())


@pytest.mark.parametrize(
    "name, value",
    [
        ("epochs", -1),
        ("epochs", 2.5),
        ("learning_rate", 0),
        ("learning_rate", math.nan),
        ("weight_decay", -0.1),
        ("validate_every", 0),
        ("patience", 0),
        ("seed", -1),
        ("device", "tpu"),
        ("precision", "8"),
    ],
)
def test_bad_settings_are_named(name, value):
    with pytest.raises(ValueError, match=f"{name}={value!r}"):
        FitConfig(**{name: value})


def test_settings_are_frozen_and_unknown_ones_are_errors():
    with pytest.raises(TypeError):
        FitConfig(speed=1)
    with pytest.raises(AttributeError):
        FitConfig().epochs = 3
    assert replace(FitConfig(), epochs=3).epochs == 3


def test_device_by_name(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match="device='cuda': expected a CUDA GPU"):
        choose_device("cuda")
    with pytest.raises(ValueError, match="device='tpu'"):
        choose_device("tpu")


def test_progress_is_shown_on_stderr_only_when_wanted(capfd):
    fit(Line(), Steps(), PULL, quiet())
    assert capfd.readouterr() == ("", "")
    fit(Line(), Steps(), PULL, quiet(progress=True))
    shown = capfd.readouterr()
    assert shown.out == "" and "training" in shown.err and "5/5" in shown.err


def test_double_precision_trains_in_double_precision():
    model = Line()
    seen = []

    def objective(output, batch):
        seen.append(output.logits.dtype)
        return output.logits.sum()

    fit(model, Steps(), Objective("pull", objective), quiet(epochs=1, precision="64-true"))
    assert seen == [torch.float64] and model.w.dtype == torch.float64


def test_a_law_shared_by_all_terms_is_computed_once(tiny, monkeypatch):
    """One pass over the catalogue serves the loss and both regularisers."""
    import inforec.distribution as module

    passes = []
    real = module.catalogue_pass
    monkeypatch.setattr(module, "catalogue_pass", lambda *a: passes.append(1) or real(*a))
    batches = UserBatches(tiny.train, 10**6, 0)
    fit(build("mf", tiny), batches, SOFTMAX, quiet(epochs=1), regularizers=terms(tiny))
    assert len(batches) == 1 and len(passes) == 1
    assert isinstance(build("mf", tiny)(next(batches.epoch(1))).distribution, ItemDistribution)
