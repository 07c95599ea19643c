"""The searches and grids behind the book's tables, on a data set of a second."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import inforec
from inforec import experiment, results
from inforec.evaluate import evaluate_lists, recommend
from inforec.models import REGISTRY, Ranker


@pytest.fixture
def workflow(monkeypatch, tmp_path):
    """The modules runs and study, with a results folder of their own."""
    for name in ("optuna", "implicit", "threadpoolctl"):
        pytest.importorskip(name, reason="the extra `workflow` is not installed")
    monkeypatch.syspath_prepend(Path(inforec.__file__).parents[2] / "workflow")
    monkeypatch.setenv("INFOREC_RESULTS", str(tmp_path))
    import runs
    import study

    return runs, study


@pytest.fixture
def method(workflow, tiny_folder):
    runs, _ = workflow
    fixed = {"dataset": str(tiny_folder), "model": "mf", "options.dim": 4, "epochs": 2, "k": 20}
    space = {"learning_rate": (0.001, 0.1), "options.cosine": [False, True]}
    return runs.Method({**fixed, "candidates": 20, "device": "cpu"}, space)


PARENT = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
import runs

def wait(pipe):
    os.write(os.open(pipe, os.O_WRONLY), b"x")  # held open until the worker ends
    time.sleep(600)

if __name__ == "__main__":
    runs.in_parallel("waiting", wait, [(sys.argv[2],)] * 2, 2)
"""


@pytest.mark.slow
def test_the_workers_of_a_killed_grid_end(workflow, tmp_path):
    script, pipe = tmp_path / "parent.py", tmp_path / "pipe"
    script.write_text(PARENT)
    os.mkfifo(pipe)
    folder = Path(inforec.__file__).parents[2] / "workflow"
    parent = subprocess.Popen(
        [sys.executable, str(script), str(folder), str(pipe)],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        with open(pipe, "rb", buffering=0) as file:
            said = b""
            while len(said) < 2:
                said += file.read(1)
            parent.kill()
            parent.wait()
            ended, _, _ = select.select([file], [], [], 60)
            assert ended and file.read() == b""  # comes when the last worker has ended
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(parent.pid, signal.SIGKILL)


@pytest.mark.filterwarnings("default")  # optuna announces what it may change
def test_a_search_keeps_its_budget_and_goes_on_where_it_stopped(workflow, method, tmp_path):
    runs, _ = workflow
    whole = runs.search(method, "whole", 5)
    assert len(whole) == len(results.load(tmp_path / "whole")) == 5
    assert len({config.learning_rate for config in whole}) == 5
    runs.search(method, "stopped", 2)
    first = {r.run_id: r.provenance["date"] for r in results.load(tmp_path / "stopped")}
    again = runs.search(method, "stopped", 5)
    # How many trials are drawn at random depends on the budget; the first two are either way.
    assert again[:2] == whole[:2] and len(again) == 5
    kept = {r.run_id: r.provenance["date"] for r in results.load(tmp_path / "stopped")}
    assert {name: kept[name] for name in first} == first and len(kept) == 5
    assert runs.search(method, "whole", 5) == whole


@pytest.mark.filterwarnings("default")
def test_validation_chooses(workflow, method, tmp_path):
    runs, _ = workflow
    tried = runs.search(method, "tune", 4)
    best = runs.best(tried, "tune")
    values = {r.run_id: r.valid["ndcg@20"] for r in results.load(tmp_path / "tune")}
    assert values[results.run_id(best.to_dict())] == max(values.values())
    # A setting without a record is never chosen.
    assert runs.best([replace(best, seed=9), best], "tune") == best


@pytest.mark.filterwarnings("default")
def test_every_variant_of_a_method_has_seen_the_same_number_of_settings(
    workflow, method, tmp_path, monkeypatch
):
    _, study = workflow
    monkeypatch.setitem(study.METHODS, "MF", replace(method, fixed={"model": "mf"}))
    fixed = {n: v for n, v in method.fixed.items() if n != "model"}
    grid = study.Study(fixed, budget=3, seeds=2)
    chosen = study.tune("tiny", grid, "MF")
    assert list(chosen) == ["MF", "MF + terms"]
    records = results.load(tmp_path / "tiny-tune")
    plain = [r for r in records if results.method(r) == "MF"]
    terms = [r for r in records if results.method(r) == "MF + terms"]
    assert (len(plain), len(terms)) == (3, 1)  # two of the three are shared
    assert terms[0].config["learning_rate"] in {r.config["learning_rate"] for r in plain}
    assert [c.seed for c in study.seeded(chosen["MF"], 2)] == [0, 1]


def test_closed_forms_need_one_seed_and_every_decision_is_valid(workflow):
    runs, study = workflow
    config = runs.Method({"model": "ease"}).config()
    assert study.seeded(config, 5) == [config]
    everything, few = study.decisions(True), study.decisions(False)
    assert all(decision in everything for decision in few)
    assert {decision["reranker"] for decision in few} == {
        *("steck", "expected_ndcg", "decaying_attention", "tilt", "tilt_steck")
    }
    ids = {results.run_id(replace(config, **decision).to_dict()) for decision in everything}
    assert len(ids) == len(everything)


def test_the_studies_name_methods_that_exist(workflow):
    _, study = workflow
    rankers = {name for name, model in REGISTRY.items() if issubclass(model, Ranker)}
    assert {m.fixed["model"] for m in study.METHODS.values()} == rankers
    for name, one in study.STUDIES.items():
        assert set(one.methods) <= set(study.METHODS), name
        assert one.budget % 3 == 0 and one.seeds >= 5, name
        for method in one.methods:
            study.searched(one, method).config()


def test_a_study_has_ranges_and_fields_of_its_own(workflow):
    _, study = workflow
    one = study.Study(
        {"dataset": "ml-100k", "epochs": 7},
        budget=3,
        seeds=5,
        ranges={"MF": {"temperature": (0.1, 0.2)}},
        own={"MF": {"epochs": 9}},
    )
    mf = study.searched(one, "MF")
    assert mf.fixed == {"dataset": "ml-100k", "epochs": 9, "model": "mf"}
    assert mf.space == {**study.METHODS["MF"].space, "temperature": (0.1, 0.2)}
    ease = study.searched(one, "EASE")
    assert ease.fixed["epochs"] == 7 and ease.space == study.METHODS["EASE"].space


def test_the_comparison_starts_from_what_the_search_left(workflow, tmp_path, method):
    _, study = workflow
    config = method.config()
    run_id = results.run_id(config.to_dict())
    (tmp_path / "tiny-tune").mkdir()
    for name in (f"{run_id}.json", f"{run_id}.weights", "other.json"):
        (tmp_path / "tiny-tune" / name).write_text("of the search")
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / f"{run_id}.json").write_text("kept")
    study.carry_over("tiny", [config])
    assert (tmp_path / "tiny" / f"{run_id}.json").read_text() == "kept"
    assert (tmp_path / "tiny" / f"{run_id}.weights").read_text() == "of the search"
    assert not (tmp_path / "tiny" / "other.json").exists()


def test_published_numbers_get_ours_with_the_validation_items_left_in(workflow, method, tmp_path):
    runs, study = workflow
    config = method.config()
    runs.run_all("compare", study.seeded(config, 2), "tiny", 1)
    path = tmp_path / "tiny" / "training-left-out.metrics"
    path.write_text('{"other": {"recall@20": [0.5]}}')
    study.as_published("tiny", {"MF": config}, 2)
    found = json.loads(path.read_text())
    assert found["other"] == {"recall@20": [0.5]}
    for seed, (recall, ndcg) in enumerate(zip(*found["MF"].values(), strict=True)):
        model, dataset = experiment.trained(replace(config, seed=seed), tmp_path / "tiny")
        lists_UK = recommend(model, dataset, 20, "valid")  # leaves out what was trained on
        wanted = evaluate_lists(lists_UK, dataset, (20,), "test")
        assert (recall, ndcg) == (wanted["recall@20"], wanted["ndcg@20"])
    record = results.load(tmp_path / "tiny")[0]
    assert found["MF"]["ndcg@20"][0] < record.test["ndcg@20"]  # validation items take places


def test_ratings_are_tuned_on_the_first_split_and_run_on_all(workflow, tmp_path, monkeypatch):
    import ratings

    folder = tmp_path / "rated"
    folder.mkdir()
    pairs = [(u, i) for u in range(20) for i in range(12) if (3 * u + 5 * i) % 7 < 4]
    columns = {"user": [u for u, _ in pairs], "item": [i for _, i in pairs]}
    columns["rating"] = [1.0 + (u % 3 + i % 4) % 5 for u, i in pairs]
    pq.write_table(pa.table(columns), folder / "interactions.parquet")
    training = {"batch_size": 64, "learning_rate": 0.01, "epochs": 1}
    name = str(folder)
    monkeypatch.setattr(ratings, "TRAINING", {name: {"AutoRec": training, "BiasedMF": training}})
    monkeypatch.setattr("sys.argv", ["ratings.py", "--splits", "2"])
    ratings.main()
    tried, made = (results.load(tmp_path / study) for study in ("ratings-tune", "ratings"))
    # Three methods with four penalties each; the chosen on two splits, and three other pairs.
    assert len(tried) == 12 and len(made) == 3 * 2 + 3
    assert {record.config["split_seed"] for record in tried} == {ratings.FIRST}
    best = {record.run_id for record in made} & {record.run_id for record in tried}
    assert len(best) == 3
    for record in tried:
        same = [
            other
            for other in tried
            if other.config["model"] == record.config["model"]
            and other.config["options"].get("rows") == record.config["options"].get("rows")
        ]
        lowest = min(same, key=lambda one: one.valid["rmse"])
        assert (record.run_id in best) == (record is lowest)
