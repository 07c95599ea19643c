"""The real data sets: counts, sources that agree, and the published splits."""

import os
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from inforec.data import load, load_impressions
from inforec.data.catalog import CATALOG
from inforec.data.fetch import fetch


def _load(name, **arguments):
    try:
        return load(name, **arguments)
    except ConnectionError as error:
        pytest.skip(f"{name} cannot be had: {error}")


@pytest.fixture(scope="module")
def everything():
    """MovieLens-100K with all ratings and all users."""
    return _load("ml-100k", min_rating=0, min_interactions=1)


def test_movielens_100k_is_complete(everything):
    sets = (everything.train, everything.valid, everything.test)
    assert sum(map(len, sets)) == 100_000
    assert (everything.num_users, everything.num_items) == (943, 1682)
    # The 18 genres of MovieLens and "unknown", which two films have.
    assert len(everything.category_names) == 19 and everything.category_names[-1] == "unknown"
    assert int((everything.category_NC[:, -1] == 1).sum()) == 2
    assert everything.category_kind == "genres" and everything.clock == "timestamp"
    rating = torch.cat([part.rating for part in sets])
    assert torch.bincount(rating.long()).tolist() == [0, 6110, 11370, 27145, 34174, 21201]
    assert everything.item_titles[0] == "Toy Story" and everything.item_fields["year"][0] == 1995
    assert sorted(everything.user_fields) == ["age", "gender", "occupation", "zip"]
    assert everything.item_titles[542] == "Misérables, Les"


def test_movielens_100k_has_its_knowledge_graph(everything):
    graph = everything.knowledge
    if graph is None:
        pytest.skip("MovieLens-100K was fetched from the publisher, without the knowledge graph")
    assert (len(graph), graph.num_relations, graph.num_entities) == (91_631, 24, 34_628)
    assert int((graph.item_entity >= 0).sum()) == 1598
    assert graph.entity_names[graph.item_entity[475]] == "m.08gjyx"  # item 476


def test_movielens_100k_as_the_book_uses_it():
    dataset = _load("ml-100k")
    assert (dataset.num_users, dataset.num_items) == (938, 1447)
    assert [len(p) for p in (dataset.train, dataset.valid, dataset.test)] == [44265, 5548, 5548]
    sums_U = dataset.interest_UC.sum(1)
    assert torch.allclose(sums_U, torch.ones(938), atol=1e-6)
    # The data hash of every record: it changes when the loader or the split does.
    assert dataset.fingerprint.startswith("a544d754ab0f")


@pytest.mark.parametrize("split", ["leave_one_out", "temporal"])
def test_movielens_100k_in_time(split):
    dataset = _load("ml-100k", split=split)
    train, test = dataset.train, dataset.test
    if split == "temporal":
        assert train.time.max() < dataset.valid.time.min()
        assert dataset.valid.time.max() < test.time.min()
        assert (train.user_counts > 0).all()
    else:
        last_U = torch.zeros(dataset.num_users, dtype=torch.int64)
        last_U.scatter_reduce_(0, train.user, train.time, "amax")
        assert (test.time >= last_U[test.user]).all() and len(test) == dataset.num_users


def _local(name):
    """The folder of that name on INFOREC_DATA; skips where there is none."""
    for root in filter(None, os.environ.get("INFOREC_DATA", "").split(os.pathsep)):
        if (Path(root) / name).is_dir():
            return Path(root) / name
    return pytest.skip(f"{name} is in no folder on INFOREC_DATA")


@pytest.mark.data
def test_the_wheel_and_the_local_folder_agree(tmp_path, monkeypatch):
    _local("ml-100k")
    monkeypatch.setenv("INFOREC_CACHE", str(tmp_path / "local"))
    local = load("ml-100k")
    monkeypatch.delenv("INFOREC_DATA")
    monkeypatch.setenv("INFOREC_CACHE", str(tmp_path / "wheel"))
    wheel = _load("ml-100k")
    assert (local.source, wheel.source) == ("INFOREC_DATA", "recbole==1.2.1")
    assert local.fingerprint == wheel.fingerprint
    assert local.item_titles == wheel.item_titles and local.item_fields == wheel.item_fields
    assert local.user_fields == wheel.user_fields
    assert local.knowledge.entity_names == wheel.knowledge.entity_names
    assert torch.equal(local.knowledge.head, wheel.knowledge.head)


@pytest.mark.data
@pytest.mark.parametrize("name", [name for name in CATALOG if "given" in CATALOG[name].splits])
def test_published_splits(name, tmp_path, monkeypatch):
    _local(name)
    monkeypatch.setenv("INFOREC_CACHE", str(tmp_path))
    dataset = load(name, split="given")
    counts = CATALOG[name].counts
    assert (dataset.num_users, dataset.num_items) == (counts["users"], counts["items"])
    assert len(dataset.test) == counts["test"]
    assert len(dataset.train) + len(dataset.valid) == counts["train"]
    expected = "genres" if "genres" in CATALOG[name].side else "popularity strata"
    assert dataset.category_kind == expected


@pytest.mark.data
def test_movielens_1m_as_labelled_rows(tmp_path, monkeypatch):
    """RecBole's benchmark has seven fields and 739,012 rows of it."""
    _local("ml-1m")
    monkeypatch.setenv("INFOREC_CACHE", str(tmp_path))
    for name, split in (("ml-1m-ctr", "random"), ("ml-1m-ctr-time", "time_ordered")):
        clicks = load_impressions(name, split=split)
        parts = (clicks.train, clicks.valid, clicks.test)
        assert sum(map(len, parts)) == 739_012
        assert sum(int(part.label.sum()) for part in parts) == 348_971 + 226_310  # 4 and 5
        fields = ["user", "item", "gender", "age", "occupation", "year", "genre"]
        fields += ["rated_before"] if name.endswith("time") else []
        assert list(clicks.train.fields) == fields
        assert clicks.vocabulary["genre"][0] == "Action" and clicks.train.sizes["genre"] == 19
        assert len(clicks.test) == (73_901 if split == "random" else 73_922)


@pytest.mark.data
def test_frappe_as_labelled_rows(tmp_path, monkeypatch):
    _local("ctr-frappe")
    monkeypatch.setenv("INFOREC_CACHE", str(tmp_path))
    clicks = load_impressions("ctr-frappe", split="given")
    assert len(clicks.train) + len(clicks.valid) == 57_722 and len(clicks.test) == 28_860
    assert len(clicks.train.fields) == 10 and "city" in clicks.train.fields
    with pytest.raises(ValueError, match="labelled rows"):
        load("ctr-frappe", split="given")


@pytest.mark.data
def test_movielens_1m_has_positions_for_a_clock(tmp_path, monkeypatch):
    _local("ml-1m")
    monkeypatch.setenv("INFOREC_CACHE", str(tmp_path))
    dataset = load("ml-1m", split="leave_one_out", min_rating=0)
    assert dataset.clock == "position" and dataset.num_users == 6040
    assert len(dataset.category_names) == 18 and dataset.item_titles[0] == "Toy Story"
    assert int(dataset.test.time.sum() + 6040) == 1_000_209  # the last place of n is n - 1
    with pytest.raises(ValueError, match="'temporal' needs a column 'timestamp'"):
        load(fetch("ml-1m"), split="temporal")


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "dropped", "repeats", "moved", "attributes", "bare"),
    [("seq-beauty", 0, 0, 0, 61, 0), ("seq-yelp", 80, 2027, 1405, 88, 50)],
)
def test_sequences_against_the_raw_files(
    name, dropped, repeats, moved, attributes, bare, tmp_path, monkeypatch
):
    folder = _local(name)
    monkeypatch.setenv("INFOREC_CACHE", str(tmp_path))
    dataset = load(name, split="leave_one_out", min_interactions=3)
    seen, whole = {}, {}
    rows = pq.read_table(folder / "sequences.parquet").sort_by("pos").to_pydict()
    for user, item in zip(rows["user"], rows["item"], strict=True):
        seen.setdefault(user, {})[item] = None  # a dict keeps the place of the first
        whole.setdefault(user, []).append(item)
    counts = CATALOG[name].counts
    assert len(seen) == counts["users"] == dataset.num_users + dropped
    assert sum(map(len, seen.values())) == counts["interactions"]
    # What the chapter says of the published last item: seen before, or no longer the last.
    assert sum(items[-1] in items[:-1] for items in whole.values()) == repeats
    assert sum(whole[user][-1] != [*seen[user]][-1] for user in seen) == moved

    train, item_ids = dataset.train.item.tolist(), dataset.item_ids
    held = zip(dataset.valid.item.tolist(), dataset.test.item.tolist(), strict=True)
    start = 0
    for user, (valid, test) in zip(dataset.user_ids, held, strict=True):
        *before, last_but_one, last = seen[user]
        assert (item_ids[valid], item_ids[test]) == (last_but_one, last)
        assert {item_ids[i] for i in train[start : start + len(before)]} == set(before)
        start += len(before)
    assert start == len(train) and dataset.clock == "position"

    carriers, given = Counter(), {}
    pairs = pq.read_table(folder / "item_attributes.parquet").to_pydict()
    for item, attribute in zip(pairs["item"], pairs["attribute"], strict=True):
        carriers[attribute] += 1
        given.setdefault(item, []).append(attribute)
    names, found = dataset.category_names, 0
    for item, row_C in zip(item_ids, dataset.category_NC.numpy(), strict=True):
        frequent = [a for a in given.get(item, ()) if carriers[a] >= counts["items"] / 100]
        expected = {f"attribute {a}" for a in frequent} or {"unknown"}
        assert {names[c] for c in row_C.nonzero()[0]} == expected
        found += "unknown" in expected
    assert found == bare and len(set(names) - {"unknown"}) == attributes
    assert dataset.category_kind == "attributes"


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("seq-beauty", (22_363, 12_101, 153_776, 22_363, 22_363)),
        ("seq-yelp", (29_061, 20_017, 241_306, 29_061, 29_061)),
    ],
)
def test_sequences_as_the_study_uses_them(name, sizes, tmp_path, monkeypatch):
    _local(name)
    monkeypatch.setenv("INFOREC_CACHE", str(tmp_path))
    dataset = load(name, split="leave_one_out")
    sets = (dataset.train, dataset.valid, dataset.test)
    assert (dataset.num_users, dataset.num_items, *map(len, sets)) == sizes
    again = load(name, split="random")
    assert sum(map(len, sets)) == len(again.train) + len(again.valid) + len(again.test)
    assert torch.allclose(dataset.interest_UC.sum(1), torch.ones(dataset.num_users), atol=1e-5)
