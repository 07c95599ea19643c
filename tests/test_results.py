"""Records: written whole or not at all, read back as they were, found by their configuration."""

import copy
import errno
import io
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import inforec
from inforec import results
from inforec.models import REGISTRY
from inforec.results import Record, Table

CONFIG = {"model": "mf", "alpha": 0.1, "options": {"dim": 4}, "seed": 0}


def record(config=None, arrays=True):
    config = copy.deepcopy(config or CONFIG)
    return Record(
        config=config,
        run_id=results.run_id(config),
        study="a study",
        valid={"ndcg@5": 0.1 + 0.2, "ild@5": math.nan},
        test={"ndcg@5": 1 / 3, "recall@5": math.nan},
        history=[
            {"epoch": 1, "loss": 2.0, "terms": {"softmax": 2.0}, "seconds": 0.1},
            {"epoch": 2, "loss": None, "terms": {}, "seconds": 0.1, "valid": {"ild@5": math.nan}},
        ],
        cost={"seconds": 1.5, "parameters": 12},
        provenance={"commit": None, "dirty": False, "versions": {"torch": "2"}},
        arrays={"top_UK": np.array([[1, -1], [0, 2]])} if arrays else None,
    )


def same(first, second):
    """Equality in which NaN equals NaN."""
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(same(first[k], second[k]) for k in first)
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, float) and isinstance(second, float) and math.isnan(first):
        return math.isnan(second)
    return type(first) is type(second) and first == second


# ---- writing and reading ------------------------------------------------------------------------


def test_a_record_comes_back_as_it_was(tmp_path):
    written = record()
    path = results.write(written, tmp_path / "new" / "study")
    assert path == tmp_path / "new" / "study" / f"{written.run_id}.json"
    back = results.read(path)
    for name in ("config", "run_id", "study", "valid", "test", "history", "cost", "provenance"):
        assert same(getattr(written, name), getattr(back, name)), name
    assert np.array_equal(back.top, written.top) and not back.found


def test_the_file_is_plain_json_without_nan(tmp_path):
    text = results.write(record(), tmp_path).read_text()

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    assert json.loads(text, parse_constant=refuse)["test"]["recall@5"] is None
    assert text.endswith("}\n")


def test_a_record_without_its_lists_says_how_to_get_them(tmp_path):
    path = results.write(record(), tmp_path)
    path.with_suffix(".npz").unlink()
    back = results.read(path)
    with pytest.raises(ValueError, match=f"run {back.run_id} .* results=None"):
        _ = back.top


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_value_that_json_cannot_hold_leaves_nothing(tmp_path):
    broken = record()
    broken.test["ndcg@5"] = math.inf
    with pytest.raises(ValueError):
        results.write(broken, tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize("breaks", ["savez_compressed", "replace"])
@pytest.mark.parametrize("before", [False, True])
def test_a_failure_in_the_middle_leaves_what_was_there(tmp_path, monkeypatch, breaks, before):
    kept = {}
    if before:
        path = results.write(record(), tmp_path)
        kept = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
        assert path.name in kept

    def fail(*arguments, **options):
        raise OSError("disk full")

    monkeypatch.setattr(np if breaks == "savez_compressed" else os, breaks, fail)
    later = record()
    later.cost["seconds"] = 99.0
    with pytest.raises(OSError, match="disk full"):
        results.write(later, tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == kept


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"valid": {}, "test": {}, "history": []}', "null"]
)
def test_a_file_that_is_no_record_is_named(tmp_path, text):
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"other\.json is not a record"):
        results.read(path)


def test_no_bit_of_a_record_changes_unseen(tmp_path):
    path = results.write(record(arrays=False), tmp_path)
    raw, whole = path.read_bytes(), results.read(path)
    for place in range(len(raw)):
        path.write_bytes(raw[:place] + bytes([raw[place] ^ 1 << place % 8]) + raw[place + 1 :])
        try:
            back = results.read(path)
        except ValueError as error:
            assert f"{path} is not a record of inforec" in str(error)
        else:
            assert same(vars(back), vars(whole))  # such as an "E" in an exponent
    path.write_text(raw.decode().replace("0.333", "0.433"))
    with pytest.raises(ValueError, match="was altered; delete it to run its config"):
        results.find(CONFIG, tmp_path)


def test_a_record_from_before_there_were_sums_is_read(tmp_path):
    path = results.write(record(), tmp_path)
    body = json.loads(path.read_text())
    del body["digest"], body["arrays"]
    path.write_text(json.dumps(body))
    assert results.find(CONFIG, tmp_path).top.shape == (2, 2)
    path.with_suffix(".npz").write_bytes(b"PK half")
    with pytest.raises(ValueError, match=r"\.npz is damaged; delete it and its record"):
        results.read(path)


def test_a_record_under_another_name_is_not_found(tmp_path):
    path = results.write(record(), tmp_path)
    other = {**CONFIG, "seed": 1}
    path.rename(tmp_path / f"{results.run_id(other)}.json")
    with pytest.raises(ValueError, match=f"holds the record of run {results.run_id(CONFIG)}"):
        results.find(other, tmp_path)


@pytest.mark.parametrize("change", ["another run's", "altered", "none of its own"])
def test_lists_that_are_not_those_of_the_record_are_not_given(tmp_path, change):
    ours, theirs = record(arrays=change != "none of its own"), record({**CONFIG, "seed": 1})
    theirs.arrays = {"top_UK": np.array([[2, 0], [0, 1]])}
    paths = [results.write(each, tmp_path).with_suffix(".npz") for each in (ours, theirs)]
    if change == "altered":
        raw = paths[0].read_bytes()
        paths[0].write_bytes(raw[:60] + bytes([raw[60] ^ 4]) + raw[61:])
    else:
        paths[1].replace(paths[0])
    found = results.find(CONFIG, tmp_path)
    with pytest.raises(ValueError, match="not stored beside its record"):
        _ = found.top


def test_a_full_disk_is_said_with_the_name_of_the_file(tmp_path, monkeypatch):
    """torch.save alone would speak of an unexpected position."""

    class Full(io.FileIO):
        def write(self, content):
            if self.tell() + len(content) > self.room:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(content)

    monkeypatch.setattr(results, "open", lambda path, mode: Full(path, mode), raising=False)
    for Full.room in (0, 300, 1000, 4000):
        with pytest.raises(OSError, match=r"No space left on device: '.*/a\.weights'"):
            results.save_tensors({"a": torch.zeros(1000)}, tmp_path / "a.weights")
    Full.room = 0
    with pytest.raises(OSError, match=r"No space left on device: '.*\.npz'"):
        results.write(record(), tmp_path)
    with pytest.raises(OSError, match=r"No space left on device: '.*\.json'"):
        results.write(record(arrays=False), tmp_path)
    assert names(tmp_path) == []


def test_no_bit_of_a_weight_changes_unseen(tmp_path):
    path, state = tmp_path / "a.weights", {"name": "a", "weight": torch.arange(64.0)}
    results.save_tensors(state, path)
    raw, device = path.read_bytes(), torch.device("cpu")
    for place in range(len(raw)):
        path.write_bytes(raw[:place] + bytes([raw[place] ^ 1 << place % 8]) + raw[place + 1 :])
        try:
            back = results.load_tensors(path, device)
        except ValueError as error:
            assert f"{path} is not a readable checkpoint" in str(error)
        else:
            assert back["name"] == "a" and torch.equal(back["weight"], state["weight"])


def test_what_a_killed_writer_left_is_removed_and_what_a_live_one_writes_is_not(tmp_path):
    (tmp_path / ".0123456789ab.json.abc.tmp").write_text("half")
    live = tmp_path / "ba9876543210.json"
    with results._Replacing(live) as temporary:
        Path(temporary).write_text("whole")
        results.prepare(tmp_path)
        assert names(tmp_path) == [Path(temporary).name]
    assert names(tmp_path) == [live.name]


def test_a_folder_that_cannot_be_written_is_named_before_anything_is_run(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match=r"results='.*/file/study': expected a folder"):
        results.prepare(tmp_path / "file" / "study")

    def refuse(dir):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(results.tempfile, "TemporaryFile", refuse)
    with pytest.raises(OSError, match="expected a folder that can be written: Read-only file"):
        results.prepare(tmp_path)


WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
import test_results as own
for round in range(30):
    for seed in range(4):
        made = own.record({**own.CONFIG, "seed": seed})
        made.cost = {"writer": sys.argv[3], "round": round}
        own.results.write(made, sys.argv[2])
    made = own.record({**own.CONFIG, "seed": f"{sys.argv[3]} {round}"})
    own.results.write(made, sys.argv[2])
"""


def test_two_processes_that_write_at_once_lose_nothing(tmp_path):
    here = str(Path(__file__).parent)
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, here, str(tmp_path), name])
        for name in ("left", "right")
    ]
    read = 0
    while any(writer.poll() is None for writer in writers):
        read += len(results.load(tmp_path))  # every file is whole at every moment
    assert [writer.returncode for writer in writers] == [0, 0]
    assert read > 0
    found = results.load(tmp_path)
    wanted = {str(seed) for seed in range(4)}
    wanted |= {f"{name} {round}" for name in ("left", "right") for round in range(30)}
    assert sorted(str(r.config["seed"]) for r in found) == sorted(wanted)
    assert not [name for name in names(tmp_path) if name.endswith(".tmp")]


# ---- names --------------------------------------------------------------------------------------


def test_run_id_is_the_same_in_every_order_and_process():
    assert results.run_id(CONFIG) == results.run_id(dict(reversed(CONFIG.items())))
    assert results.run_id(CONFIG) == results.run_id(json.loads(json.dumps(CONFIG)))
    assert len(results.run_id(CONFIG)) == 12 and int(results.run_id(CONFIG), 16) >= 0
    # Written down, because a change here would orphan every committed record.
    assert results.run_id({"a": 1.5}) == "a4cac47f11df"


@pytest.mark.parametrize(
    "change", [{"alpha": 0.2}, {"options": {"dim": 5}}, {"seed": 1}, {"more": None}]
)
def test_run_id_depends_on_everything(change):
    assert results.run_id({**CONFIG, **change}) != results.run_id(CONFIG)


def test_run_id_depends_on_the_format(monkeypatch):
    before = results.run_id(CONFIG)
    monkeypatch.setattr(results, "FORMAT", results.FORMAT + 1)
    assert results.run_id(CONFIG) != before


def test_find_gives_the_equal_configuration_only(tmp_path):
    assert results.find(CONFIG, tmp_path / "nowhere") is None
    results.write(record(), tmp_path)
    assert results.find({**CONFIG, "seed": 1}, tmp_path) is None
    found = results.find(CONFIG, tmp_path)
    assert found.found and found.config == CONFIG


def test_load_goes_through_all_studies_in_order(tmp_path, monkeypatch):
    for study, seed in (("b", 0), ("a", 1), ("a", 2)):
        results.write(record({**CONFIG, "seed": seed}), tmp_path / study)
    loaded = results.load(tmp_path)
    paths = sorted(tmp_path.rglob("*.json"))
    assert [r.run_id for r in loaded] == [p.stem for p in paths] and len(paths) == 3
    assert [r.config["seed"] for r in loaded][2] == 0
    monkeypatch.setenv("INFOREC_RESULTS", str(tmp_path))
    assert [r.run_id for r in results.load()] == [r.run_id for r in loaded]
    assert results.load(tmp_path / "nowhere") == []


def test_root_is_the_variable_or_the_checkout(monkeypatch, tmp_path):
    monkeypatch.setenv("INFOREC_RESULTS", str(tmp_path))
    assert results.root() == tmp_path
    monkeypatch.delenv("INFOREC_RESULTS")
    if (Path(inforec.__file__).resolve().parents[2] / "pyproject.toml").exists():
        assert results.root() == Path(inforec.__file__).resolve().parents[2] / "results"
    else:
        assert results.root() == Path.cwd() / "results"


def test_select_by_values_and_by_options():
    made = [record({**CONFIG, "seed": s, "options": {"dim": d}}) for s in (0, 1) for d in (4, 8)]
    assert results.select(made) == made
    assert results.select(made, seed=1) == made[2:]
    assert results.select(made, seed=1, options__dim=8) == [made[3]]
    assert results.select(made, seed=7) == []
    with pytest.raises(ValueError, match=r"'sede': no configuration has it"):
        results.select(made, sede=1)
    with pytest.raises(ValueError, match="'options__layers'"):
        results.select(made, options__layers=2)


# ---- provenance and tables ----------------------------------------------------------------------


def test_provenance_says_where_and_from_what():
    made = results.provenance(device=torch.device("cpu"), data="abc", seed=3)
    assert set(made) == {
        *("commit", "dirty", "date", "versions", "device", "threads", "data", "seed"),
    }
    assert (made["data"], made["seed"]) == ("abc", 3)
    assert made["versions"]["torch"] == torch.__version__
    assert made["versions"]["inforec"] == inforec.__version__
    assert made["threads"] == torch.get_num_threads() and made["device"]
    assert made["date"].endswith("+00:00")
    assert json.loads(json.dumps(made)) == made


def test_provenance_without_git(monkeypatch):
    def missing(*arguments, **options):
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", missing)
    made = results.provenance(device=torch.device("cpu"), data="", seed=0)
    assert made["commit"] is None and made["dirty"] is None


def test_commit_is_that_of_the_checkout(tmp_path, monkeypatch):
    package = tmp_path / "lib" / "inforec" / "__init__.py"
    package.parent.mkdir(parents=True)
    package.write_text("")
    (tmp_path / "pyproject.toml").write_text("")

    def git(*arguments):
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        done = subprocess.run(
            ["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    monkeypatch.setattr(inforec, "__file__", str(package))
    made = results.provenance(device=torch.device("cpu"), data="", seed=0)
    assert (made["commit"], made["dirty"]) == (git("rev-parse", "HEAD"), False)
    package.write_text("changed = True\n")
    assert results.provenance(device=torch.device("cpu"), data="", seed=0)["dirty"] is True


def test_a_table_shows_numbers_text_and_nan():
    table = Table(["Model", "NDCG@20"], [["a & b", 0.12345], ["<c>", math.nan]], digits=3)
    assert repr(table).splitlines() == ["Model  NDCG@20", "a & b    0.123", "<c>          –"]
    shown = table._repr_html_()
    assert "<td>a &amp; b</td><td>0.123</td>" in shown and "&lt;c&gt;" in shown
    assert "<th>NDCG@20</th>" in shown


def test_mean_and_spread_over_records():
    made = [record({**CONFIG, "seed": seed}) for seed in range(3)]
    for value, run in zip((0.1, 0.2, 0.6), made, strict=True):
        run.test["ndcg@20"] = value
    assert results.mean_sd(made, "ndcg@20") == pytest.approx((0.3, math.sqrt(0.07)))
    mean, sd = results.mean_sd(made[:1], "ndcg@20")
    assert mean == 0.1 and math.isnan(sd)
    with pytest.raises(ValueError, match=r"no records to average 'ndcg@20'"):
        results.mean_sd([], "ndcg@20")


def test_groups_differ_in_nothing_but_the_seed():
    slow, fast = ({**CONFIG, "options": {"dim": dim}} for dim in (4, 8))
    made = [record({**config, "seed": s}) for s in (2, 0, 1) for config in (slow, fast)]
    groups = results.by_setting(made)
    assert [[r.config["options"]["dim"] for r in group] for group in groups] == [[4] * 3, [8] * 3]
    assert [[r.config["seed"] for r in group] for group in groups] == [[0, 1, 2]] * 2
    assert results.by_setting([]) == []


# ---- methods and single users -------------------------------------------------------------------


@pytest.mark.parametrize(
    "config, name",
    [
        ({"model": "popularity"}, "popularity"),
        ({"model": "lightgcn", "loss": "softmax", "alpha": 0.0, "beta": 0.0}, "LightGCN"),
        ({"model": "lightgcn", "loss": "bpr"}, "LightGCN + BPR"),
        ({"model": "mf", "loss": "softmax", "alpha": 0.0, "beta": 0.1}, "MF + terms"),
        ({"model": "mf", "loss": "softmax", "alpha": 0.2, "beta": 0.0}, "MF + terms"),
        ({"model": "xsimgcl", "loss": "softmax", "layer_alpha": 0.5}, "XSimGCL + layer"),
        ({"model": "cdae", "loss": "logistic"}, "CDAE + logistic"),
        ({"model": "dae", "loss": "mse", "alpha": 0.2}, "DAE + square + terms"),
        ({"model": "a new one"}, "a new one"),
    ],
)
def test_a_run_belongs_to_a_row(config, name):
    assert results.method(record(config)) == name


def test_every_model_of_the_registry_has_a_name_for_people():
    own = {name for name in results.NAMES if not name.startswith(("implicit-", "recbole-"))}
    assert own == set(REGISTRY) - {"popularity"}


def test_values_of_users_are_stored_to_four_decimals_and_averaged_over_seeds(tmp_path):
    first, second = record({"seed": 0}), record({"seed": 1})
    first.users = {"ndcg@5": np.array([0.12344, np.nan, 1.0])}
    second.users = {"ndcg@5": np.array([0.3, np.nan, 0.0])}
    paths = [results.write(each, tmp_path) for each in (first, second)]
    assert '"ndcg@5": "0.1234 nan 1.0000"' in paths[0].read_text()
    back = [results.read(path) for path in paths]
    mean_U = results.over_seeds(back, "ndcg@5")
    np.testing.assert_allclose(mean_U, [0.2117, np.nan, 0.5], atol=1e-12)
    with pytest.raises(ValueError, match=r"holds no values of single users for 'recall@5'"):
        results.over_seeds(back, "recall@5")
    with pytest.raises(ValueError, match="no records to average 'ndcg@5' over"):
        results.over_seeds([], "ndcg@5")
