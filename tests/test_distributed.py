"""Two processes, started by torchrun, train the model that one process trains.

In float64, so that what is left is the order of the sums. In the first part one process plays all
of them, for every model of the registry; in the second torchrun starts two.
"""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from inforec import losses, regularizers, results
from inforec.batches import ImpressionBatches, PairBatches, RatingBatches, UserBatches
from inforec.experiment import RunConfig, run
from inforec.models import REGISTRY, ClickModel, Ranker, RatingModel
from inforec.train import Objective, Regularizer, _Step

SOFTMAX = Objective("softmax", lambda output, _: losses.softmax(output.distribution, output.target))
BPR = Objective("bpr", lambda output, _: losses.bpr(output.logits[:, 0], output.logits[:, 1:]))
CLICKS = Objective(
    "logistic", lambda output, batch: losses.binary_cross_entropy(output.logits, batch.target)
)
RATINGS = Objective("mse", lambda output, batch: losses.squared_error(output.logits, batch.target))
OPTIONS = {"din": {"history": 3, "penalty": 0.1}, "bst": {"history": 3}}  # as `impressions` has it
LEARNED = sorted(name for name in REGISTRY if not REGISTRY[name].closed_form)
RANKING, CLICKING, RATING = (
    [name for name in LEARNED if issubclass(REGISTRY[name], kind)]
    for kind in (Ranker, ClickModel, RatingModel)
)


def step_of(name, train, objective, terms=None):
    torch.manual_seed(0)
    model = REGISTRY[name](train, REGISTRY[name].Config(**OPTIONS.get(name, {}))).double()
    model.on_fit_start()
    model.train()
    model.on_epoch_start(1)
    return _Step(model, objective, terms or {})


def together(step, batch, count):
    """Loss, terms and gradients of ``count`` processes: the means of their parts."""
    step.zero_grad()
    step.count, whole, terms = count, 0.0, {}
    for step.rank in range(count):
        torch.manual_seed(1)  # every process draws alike
        loss, parts = step(batch)
        (loss / count).backward()
        whole += loss.item() / count
        for term, value in parts.items():
            terms[term] = terms.get(term, 0.0) + value.item() / count
    return whole, terms, {n: p.grad.clone() for n, p in step.named_parameters()}


def check(step, batch):
    loss, terms, gradients = together(step, batch, 1)
    for count in (2, 3):
        shared_loss, shared_terms, shared = together(step, batch, count)
        assert shared_loss == pytest.approx(loss, rel=1e-6)
        assert shared_terms == pytest.approx(terms, rel=1e-6)
        for name, wanted in gradients.items():
            torch.testing.assert_close(
                shared[name], wanted, rtol=1e-6, atol=1e-8, msg=lambda m, name=name: f"{name}: {m}"
            )


@pytest.mark.parametrize("rows", [2, 7])  # fewer than processes, and no multiple of them
@pytest.mark.parametrize("name", RANKING)
def test_the_parts_of_a_batch_of_users_are_the_whole(name, rows, tiny):
    def category_kl(output, batch):
        interest_BC = tiny.interest_UC[batch.user]
        law = output.distribution.without(batch.history).at_perplexity(8.0)
        return regularizers.category_kl(law, interest_BC, tiny.category_NC, smoothing=0.01)

    terms = {
        "category_kl": Regularizer(0.5, category_kl),
        "entropy": Regularizer(-0.2, lambda output, _: regularizers.entropy(output.distribution)),
    }
    step = step_of(name, tiny.train, SOFTMAX, terms)
    (first, *_) = UserBatches(tiny.train, 10**6, 0).epoch(1)
    check(step, first.rows(slice(rows)))


@pytest.mark.parametrize("name", RANKING)
def test_the_parts_of_a_batch_of_pairs_are_the_whole(name, tiny):
    step = step_of(name, tiny.train, BPR)
    check(step, next(PairBatches(tiny.train, 7, 0, negatives=2, popular=False).epoch(1)))


@pytest.mark.parametrize("name", CLICKING)
def test_the_parts_of_a_batch_of_impressions_are_the_whole(name, impressions):
    check(step_of(name, impressions, CLICKS), next(ImpressionBatches(impressions, 7, 0).epoch(1)))


@pytest.mark.parametrize("name", RATING)
def test_the_parts_of_a_batch_of_ratings_are_the_whole(name, tiny):
    train = replace(tiny.train, rating=torch.arange(len(tiny.train)) % 5 + 1.0)
    step = step_of(name, train, RATINGS)
    check(step, next(RatingBatches(train, 7, 0, step.model.whole).epoch(1)))


def test_every_learned_model_is_checked_in_parts():
    assert sorted(RANKING + CLICKING + RATING) == LEARNED


# 24 users in batches of 5, so that the processes have unequal parts and, at the end, 2 and 2 rows.
SHARED = {"device": "cpu", "precision": "64-true", "k": 5, "min_rating": 0, "min_interactions": 3}
SHARED |= {"batch_size": 35, "epochs": 6, "validate_every": 2, "learning_rate": 0.01}
GRAPH = {"dim": 4, "layers": 2}
CONFIGS = {
    "the whole law with its terms": {
        "model": "mf",
        "options": {"dim": 4},
        "alpha": 0.5,
        "beta": 0.2,
    },
    "pairs on a graph": {"model": "lightgcn", "options": GRAPH, "loss": "bpr"},
    "a contrast of the batch": {"model": "xsimgcl", "options": GRAPH, "alpha": 0.5},
    "draws for each row": {"model": "multvae", "options": {"hidden": 6, "dim": 3}},
    "early stopping": {
        **{"model": "mf", "options": {"dim": 4}, "loss": "sampled_softmax", "negatives": 3},
        **{"learning_rate": 0.3, "epochs": 40, "patience": 1},
    },
}
SCRIPT = """
import json, os, pathlib, sys, warnings

from inforec.experiment import RunConfig, run

warnings.simplefilter("error")
folder, printed = pathlib.Path(sys.argv[1]), []
for settings in json.loads((folder / "configs.json").read_text()):
    record = run(RunConfig(**settings), results=folder / "two", progress=False,
                 callbacks=[lambda entry: printed.append(entry["epoch"])])
    os.write(1, b"epochs %d\\n" % len(printed))  # whole lines, of two processes
"""


@pytest.fixture
def configs(tiny_folder):
    shared = {**SHARED, "dataset": str(tiny_folder)}
    return {name: RunConfig(**{**shared, **own}) for name, own in CONFIGS.items()}


def two_processes(*arguments):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
def test_two_processes_end_where_one_does(configs, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "configs.json").write_text(json.dumps([c.to_dict() for c in configs.values()]))
    answer = two_processes(tmp_path / "script.py", tmp_path)
    assert answer.returncode == 0, answer.stderr[-3000:]
    for name, config in configs.items():
        one = run(config, results=tmp_path / "one", progress=False)
        two = results.find(config.to_dict(), tmp_path / "two")
        assert two is not None, name
        for on in ("valid", "test", "law"):
            found, wanted = getattr(two, on), getattr(one, on)
            assert found == pytest.approx(wanted, rel=1e-8, abs=1e-10, nan_ok=True), (name, on)
        assert len(two.history) == len(one.history)
        for entry, wanted in zip(two.history, one.history, strict=True):
            # Fabric hands the loss out in float32.
            assert entry["loss"] == pytest.approx(wanted["loss"], rel=1e-6)
            assert entry["terms"] == pytest.approx(wanted["terms"], rel=1e-6)
        weights, shared = (
            torch.load(tmp_path / folder / f"{one.run_id}.weights", weights_only=True)["model"]
            for folder in ("one", "two")
        )
        torch.testing.assert_close(shared, weights, rtol=1e-8, atol=1e-10)
    epochs = len(results.find(configs["early stopping"].to_dict(), tmp_path / "two").history)
    assert epochs < 40, "the run that is to stop early did not"
    # One record a run and one set of weights, and nothing half-written or left to resume.
    names = sorted(path.name for path in (tmp_path / "two").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "one").iterdir())
    # Only the first process calls back.
    assert answer.stdout.count("epochs 0\n") == len(configs)


@pytest.mark.slow
def test_a_folder_that_is_not_shared_is_refused(configs, tmp_path):
    """The second process finds a checkpoint that the first has not."""
    config = configs["pairs on a graph"]
    script = tmp_path / "script.py"
    script.write_text(
        "import json, os, sys\n"
        "from inforec.experiment import RunConfig, run\n"
        "folder = sys.argv[1] + os.environ['RANK']\n"
        "run(RunConfig(**json.loads(sys.argv[2])), results=folder, progress=False)\n"
    )

    class StopError(Exception):
        pass

    def stop(entry):
        if entry["epoch"] == 3:
            raise StopError

    with pytest.raises(StopError):
        run(config, results=tmp_path / "of1", progress=False, callbacks=[stop])
    answer = two_processes(script, tmp_path / "of", json.dumps(config.to_dict()))
    assert answer.returncode != 0
    assert "expected a folder that all processes share" in answer.stderr
