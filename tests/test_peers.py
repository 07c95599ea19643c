"""Other libraries see the rows that inforec sees, and are measured by the same functions."""

import pytest
import torch
from benchmarks import peers
from benchmarks.peers import compare, records

from inforec import results
from inforec.data import Clicks
from inforec.evaluate import evaluate, evaluate_lists
from inforec.models import REGISTRY
from inforec.results import Record
from inforec.types import PAD


def installed(library):
    absent = not peers.python(library).exists()
    return pytest.mark.skipif(absent, reason=f"{library} is not installed: make peers")


def lines(path):
    head, *rows = path.read_text().splitlines()
    return head.split("\t"), [row.split("\t") for row in rows]


@pytest.fixture
def clicks(impressions):
    row = torch.arange(len(impressions))
    parts = [peers.drawn(impressions, row[start::3]) for start in range(3)]
    return Clicks("in memory", *parts, {}, "random", 0, 0)


def test_interactions_are_written_row_by_row(tiny, tmp_path):
    peers.write_dataset(tiny, tmp_path)
    for on in ("train", "valid", "test"):
        head, rows = lines(tmp_path / f"rows.{on}.inter")
        part = getattr(tiny, on)
        assert head == ["user_id:token", "item_id:token"]
        assert [[int(x) for x in row] for row in rows] == torch.stack(
            [part.user, part.item], 1
        ).tolist()


def test_labelled_rows_are_written_with_all_values_of_a_field(clicks, tmp_path):
    peers.write_clicks(clicks, tmp_path)
    head, rows = lines(tmp_path / "rows.test.inter")
    assert head[:3] == ["user_id:token", "item_id:token", "tags:token_seq"]
    assert head[3:] == ["hour:token", "item_id_list:token_seq", "label:float"]
    part = clicks.test
    assert [float(row[-1]) for row in rows] == part.label.tolist()
    assert [int(row[1]) for row in rows] == part.fields["item"].tolist()
    liked = [[i for i in row if i != PAD] for row in part.history.tolist()]
    assert [[int(i) for i in row[4].split()] for row in rows] == liked
    tags = [[t for t in row if t != PAD] for row in part.fields["tags"].tolist()]
    assert [[int(t) for t in row[2].split()] for row in rows] == tags and [] in tags


@installed("recbole")
@pytest.mark.slow
def test_recbole_and_inforec_measure_the_same_lists_alike(tiny):
    answer, arrays = peers.recbole("BPR", tiny, {"epochs": 3}, seed=0, k=5)
    own = evaluate_lists(arrays["test_top_UK"], tiny, (5,))
    assert answer["test"]["ndcg@5"] == pytest.approx(own["ndcg@5"], abs=1e-4)  # four digits
    assert len(answer["history"]) == 3 and answer["rows"] == len(tiny.train)


@installed("recbole")
@pytest.mark.slow
def test_a_failure_of_recbole_is_shown(tiny):
    with pytest.raises(RuntimeError, match="recbole's EASE failed"):
        peers.recbole("EASE", tiny, {"learner": "no such", "reg_weight": "much"}, seed=0, k=5)


@installed("lenskit")
@pytest.mark.slow
def test_lenskit_and_inforec_rank_alike(tiny):
    """The same closed form on the same rows; LensKit's NDCG and recall are defined otherwise."""
    theirs = peers.lenskit("EASE", tiny, {"regularization": 2.0}, k=5)["valid"]
    model = REGISTRY["ease"](tiny.train, REGISTRY["ease"].Config(l2=2.0))
    model.on_fit_start()
    own, _ = evaluate(model, tiny, (5,), "valid")
    for name, same in (("Hit", "hit"), ("RecipRank", "mrr"), ("Precision", "precision")):
        assert theirs[f"{name}@5"] == pytest.approx(own[f"{same}@5"])


def test_every_peer_has_a_name_for_people():
    models = (*records.RANKING, *records.CLICKS, "DIN")
    configs = [records.RecBoleConfig(model).to_dict() for model in models]
    assert {config["model"] for config in configs} <= set(results.NAMES)


def test_the_median_is_over_the_epochs_of_all_rounds():
    seconds = iter([[5.0, 1.0], [7.0, 3.0], [9.0, 2.0]])
    both = compare.in_turn(
        3,
        inforec=lambda: {"epochs": next(seconds)},
        recbole=lambda: {"epochs": [1.0]},
    )
    assert both["inforec"]["seconds_per_epoch"] == 4.0
    assert both["recbole"] == {"epochs": [1.0], "seconds_per_epoch": 1.0}


def test_the_table_says_how_many_times_better_inforec_is():
    cost = {"inforec_rows_per_second": 6.0, "recbole_rows_per_second": 2.0}
    cost |= {"inforec_seconds_per_epoch": 2.0, "recbole_seconds_per_epoch": 1.0}
    config = {"dataset": "in memory", "model": "fm", "peer": "recbole"}
    record = Record(config, "", "", {}, {}, [], cost, {})
    assert [row[3:] for row in compare.shown(record)] == [
        ["rows_per_second", "6", "2", "3.00"],
        ["seconds_per_epoch", "2", "1", "0.50"],
    ]


def test_a_pair_is_one_record_of_both_libraries_and_replaces_the_one_before(tmp_path, monkeypatch):
    monkeypatch.setenv("INFOREC_RESULTS", str(tmp_path))
    for ours in (3.0, 2.0):
        both = {"inforec": {"seconds_per_epoch": ours}, "recbole": {"seconds_per_epoch": 4.0}}
        config = {"dataset": "in memory", "model": "fm"}
        compare._record(config, both, ("seconds_per_epoch",), "print of the rows")
    (record,) = results.load(tmp_path / "bench-peers")
    assert record.cost == {"inforec_seconds_per_epoch": 2.0, "recbole_seconds_per_epoch": 4.0}
    assert record.config["peer"] == "recbole" and record.config["model"] == "fm"
    assert record.config["threads"] == torch.get_num_threads()
    assert record.provenance["data"] == "print of the rows"
