"""Each adapter turns its source into the same tables."""

import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from inforec.data import load, prepare
from inforec.data.catalog import CATALOG, Source
from inforec.data.fetch import fetch


def test_every_source_has_an_adapter_and_hashes():
    assert {"ml-100k", "ml-1m", "irb-electronic", "gowalla", "yelp2018"} <= set(CATALOG)
    for name, entry in CATALOG.items():
        assert entry.name == name and entry.licence and entry.publisher.startswith("https://")
        assert {"users", "items", "interactions"} <= set(entry.counts)
        for source in entry.sources:
            assert source.adapter in prepare.ADAPTERS
            for sha in source.files.values():
                assert len(sha) == 64 and set(sha) <= set("0123456789abcdef")


def test_the_publishers_archive_of_100k(tmp_path):
    flags = ["0"] * 19
    toy = flags.copy()
    for genre in ("Comedy", "Animation"):
        toy[prepare.GENRES_100K.index(genre)] = "1"
    unknown = ["1", *flags[1:]]
    films = [
        ["1", "Toy Story (1995)", "01-Jan-1995", "", "http://x", *toy],
        ["2", "Misérables, Les (1995) (V)", "", "", "", *toy],
        ["267", "unknown", "", "", "", *unknown],
    ]
    path = tmp_path / "ml-100k.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ml-100k/u.data", "196\t1\t3\t881250949\n186\t267\t5\t891717742\n")
        text = "".join("|".join(row) + "\n" for row in films)
        archive.writestr("ml-100k/u.item", text.encode("latin-1"))
        archive.writestr("ml-100k/u.user", "186|24|M|technician|85711\n196|53|F|other|T8H1N\n")
    tables = prepare.movielens_100k_grouplens(path)
    assert tables["items"].to_pydict() == {
        "item": [1, 2, 267],
        "title": ["Toy Story", "Misérables, Les", "unknown"],
        "categories": [["Animation", "Comedy"]] * 2 + [["unknown"]],
        "year": [1995, 1995, None],
    }
    assert tables["interactions"].to_pylist()[0] == {
        "user": 196,
        "item": 1,
        "rating": 3,
        "timestamp": 881250949,
    }
    assert tables["users"].to_pydict()["zip"] == ["85711", "T8H1N"]
    assert prepare.count(tables) == {"users": 2, "items": 2, "interactions": 2}


def test_the_publishers_archive_of_1m(tmp_path):
    path = tmp_path / "ml-1m.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ml-1m/ratings.dat", "1::1193::5::978300760\n2::3::4::978302109\n")
        films = "3::Café: A Film (1979)::Comedy|Action\n1193::Nest, The (1975)::Drama\n"
        archive.writestr("ml-1m/movies.dat", films.encode("latin-1"))
        archive.writestr("ml-1m/users.dat", "1::F::1::10::48067\n2::M::56::16::70072\n")
    tables = prepare.movielens_1m_grouplens(path)
    assert tables["items"].to_pydict() == {
        "item": [3, 1193],
        "title": ["Café: A Film", "Nest, The"],
        "categories": [["Action", "Comedy"], ["Drama"]],
        "year": [1979, 1975],
    }
    assert tables["interactions"].to_pydict() == {
        "user": [1, 2],
        "item": [1193, 3],
        "rating": [5, 4],
        "timestamp": [978300760, 978302109],
    }
    assert tables["users"].to_pydict()["occupation"] == [10, 16]


def _sequences(folder, sequences, attributes):
    """Writes a folder in the form of S3-Rec from each user's items and each item's attributes."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [(u, i, p) for u, items in sequences.items() for p, i in enumerate(items)]
    pairs = [(i, a) for i, given in attributes.items() for a in given]
    for name, columns, values in (
        ("sequences", ("user", "item", "pos"), rows),
        ("item_attributes", ("item", "attribute"), pairs),
    ):
        table = pa.table(dict(zip(columns, map(list, zip(*values, strict=True)), strict=True)))
        pq.write_table(table, folder / f"{name}.parquet")
    return folder


def test_sequences_keep_the_first_of_repeated_pairs(tmp_path):
    sequences = {1: [5, 6, 6, 7, 5], 2: [7, 5]}
    tables = prepare.attributed_sequences(_sequences(tmp_path, sequences, {5: [1], 7: [1]}))
    assert sorted(tuple(row.values()) for row in tables["interactions"].to_pylist()) == [
        (1, 5, 0),
        (1, 6, 1),
        (1, 7, 3),
        (2, 5, 1),
        (2, 7, 0),
    ]
    assert prepare.count(tables) == {"users": 2, "items": 3, "interactions": 5}


def test_no_row_of_a_sequence_depends_on_a_later_one(tmp_path):
    rng = np.random.default_rng(0)
    sequences = {u: rng.integers(1, 7, 12).tolist() for u in range(1, 9)}

    def rows(length):
        cut = {u: items[:length] for u, items in sequences.items()}
        tables = prepare.attributed_sequences(_sequences(tmp_path, cut, {cut[1][0]: [4]}))
        return {tuple(row.values()) for row in tables["interactions"].to_pylist()}

    whole = rows(12)
    assert len(whole) < 8 * 12
    for length in range(1, 12):
        assert rows(length) == {row for row in whole if row[2] < length}


def test_leave_one_out_of_repeated_pairs_tests_on_a_new_item(tmp_path):
    rng = np.random.default_rng(1)
    sequences = {u: rng.choice([*range(1, 9)] * 2, 14).tolist() for u in range(1, 20)}
    raw = _sequences(tmp_path / "raw", sequences, {i: [i % 2] for i in range(1, 9)})
    for name, table in prepare.attributed_sequences(raw).items():
        pq.write_table(table, tmp_path / f"{name}.parquet")
    dataset = load(tmp_path, split="leave_one_out", min_interactions=3)
    assert dataset.clock == "position" and dataset.num_users == 19
    for row, user in enumerate(dataset.user_ids):
        seen = list(dict.fromkeys(sequences[user]))
        held = [dataset.item_ids[part.item[row]] for part in (dataset.valid, dataset.test)]
        trained = dataset.train.item[dataset.train.user == row].tolist()
        assert held == seen[-2:]
        assert {dataset.item_ids[i] for i in trained} == set(seen[:-2])


def test_attributes_that_few_items_carry_are_left_out(tmp_path):
    # Of 200 items two carry 7, one in a hundred; one carries 8; 17 is there twice, on one.
    attributes = {i: [30] for i in range(1, 198)}
    attributes |= {1: [7, 30], 2: [30, 7, 8], 3: [17, 17], 198: [9], 199: [30]}
    sequences = {1: [*range(1, 201)]}
    folder = _sequences(tmp_path, sequences, attributes)
    items = prepare.attributed_sequences(folder)["items"]
    assert items["item"].to_pylist() == [*range(1, 201)]
    lists = items["categories"].to_pylist()
    assert lists[:4] == [
        ["attribute 30", "attribute 7"],
        ["attribute 30", "attribute 7"],
        [],
        ["attribute 30"],
    ]
    assert lists[197:] == [[], ["attribute 30"], []]


@pytest.fixture
def shelf(tmp_path, monkeypatch, cache, entry):
    """'tiny' as sequences with attributes on INFOREC_DATA; gives that folder."""
    sequences = {u: [1, 2, 3, 4, 5] for u in (1, 2)}
    attributes = {1: [4], 2: [4, 9], 3: [9], 4: [4]}
    folder = _sequences(tmp_path / "shelf" / "tiny", sequences, attributes)
    files = {path.name: prepare.sha256(path) for path in sorted(folder.iterdir())}
    entry(
        Source("local", "attributed_sequences", files),
        counts={"users": 2, "items": 5, "interactions": 10},
        category_kind="attributes",
    )
    monkeypatch.setenv("INFOREC_DATA", str(folder.parent))
    return folder


def test_attributes_become_categories(shelf):
    dataset = load("tiny", split="leave_one_out")
    assert dataset.category_kind == "attributes"
    assert dataset.category_names == ("attribute 4", "attribute 9", "unknown")
    expected = [[1, 0, 0], [0.5, 0.5, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1]]
    assert dataset.category_NC.tolist() == expected
    assert dataset.notes == ("1 items without a category count as 'unknown'",)
    with pytest.raises(ValueError, match="'temporal' needs a column 'timestamp'"):
        load("tiny", split="temporal")


@pytest.mark.parametrize("name", ["sequences", "item_attributes"])
def test_bad_files_of_sequences_are_named(shelf, cache, name):
    path = shelf / f"{name}.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=rf"{name}.parquet: the file is truncated or was altered"):
        fetch("tiny")
    path.unlink()
    with pytest.raises(ValueError, match=rf"{name}.parquet is missing; .* only part of the files"):
        fetch("tiny")
    assert not (cache / "tiny").exists()


def test_a_companion_is_joined_on_the_original_id(tmp_path):
    films = {"item": [1, 2, 10], "title": ["a", "b", "c"], "categories": [["x"], ["y"], []]}
    pq.write_table(pa.table({**films, "year": [1, 2, 3]}), tmp_path / "items.parquet")
    tables = {"items": pa.table({"item": [0, 1], "original": ["1", "10"]})}
    prepare.join_companion(tables, tmp_path)
    assert tables["items"].to_pylist() == [
        {"item": 0, "original": "1", "title": "a", "categories": ["x"], "year": 1},
        {"item": 1, "original": "10", "title": "c", "categories": [], "year": 3},
    ]
    tables = {"items": pa.table({"item": [0], "original": ["7"]})}
    with pytest.raises(ValueError, match=r"items.parquet lacks item 7"):
        prepare.join_companion(tables, tmp_path)
