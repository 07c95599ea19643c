"""Each adapter turns its source into the same tables."""

import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from inforec.data import prepare
from inforec.data.catalog import CATALOG


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
