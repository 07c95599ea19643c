"""Raw files of each source -> the tables of a data-set folder, one small adapter per source.

An adapter takes the path of a verified raw folder or archive and returns ``{file name: table}`` for
some of interactions, train, valid, test, items, users, knowledge and links. Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.parquet as pq

from inforec.data.catalog import Entry

FORMAT = 1  # of the prepared folders; a cache of another format is prepared again
Tables = dict[str, pa.Table]

GENRES_100K = (
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
)
_YEAR = re.compile(r"^(?P<title>.*?)\s*\((?P<year>\d{4})\)(?:\s*\(V\))?\s*$")


def _films(item, title, year, genres: list[list[str]]) -> pa.Table:
    """Items of MovieLens in one form: the year out of the title, genres as sorted lists."""
    names, years = [], []
    for text, given in zip(title, year, strict=True):
        match = _YEAR.match(text)
        names.append(match["title"] if match else text)
        found = match["year"] if match else given
        years.append(int(found) if found and str(found).isdigit() else None)
    return pa.table(
        {
            "item": pa.array(item, pa.int64()),
            "title": pa.array(names, pa.string()),
            "categories": pa.array([sorted(row) for row in genres], pa.list_(pa.string())),
            "year": pa.array(years, pa.int64()),
        }
    )


def _columns(table: pa.Table, **names: str) -> pa.Table:
    """The named columns, renamed: new name = old name; integers become int64."""
    columns = {}
    for new, old in names.items():
        column = table[old]
        if pa.types.is_integer(column.type):
            column = column.cast(pa.int64())
        columns[new] = column
    return pa.table(columns)


def _text(raw: bytes, names: list[str], delimiter: str, encoding: str = "utf8") -> pa.Table:
    """A table without quoting, every column a string."""
    return csv.read_csv(
        io.BytesIO(raw.decode(encoding).encode()),
        read_options=csv.ReadOptions(column_names=names),
        parse_options=csv.ParseOptions(delimiter=delimiter, quote_char=False),
        convert_options=csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
        ),
    )


def _integers(table: pa.Table, *names: str) -> pa.Table:
    for name in names:
        place = table.column_names.index(name)
        table = table.set_column(place, name, table[name].cast(pa.int64()))
    return table


_RATINGS = {"user": "user", "item": "item", "rating": "rating", "timestamp": "timestamp"}


def movielens_100k_parquet(folder: Path) -> Tables:
    """Local folder: ratings, items, users, kg, link."""
    items = pq.read_table(folder / "items.parquet").to_pydict()
    genres = [text.split() for text in items["genres"]]
    title = ["unknown" if text == "unkonwn" else text for text in items["title"]]
    users = pq.read_table(folder / "users.parquet")
    return {
        "interactions": _columns(pq.read_table(folder / "ratings.parquet"), **_RATINGS),
        "items": _films(items["item"], title, items["year"], genres),
        "users": _columns(users, **{name: name for name in users.column_names}),
        "knowledge": pq.read_table(folder / "kg.parquet"),
        "links": _columns(pq.read_table(folder / "link.parquet"), item="item", entity="entity"),
    }


def movielens_100k_recbole(wheel: Path) -> Tables:
    """The five text files that the wheel of RecBole carries, read straight out of the zip."""

    def read(suffix: str, names: list[str]) -> pa.Table:
        with zipfile.ZipFile(wheel) as archive:
            raw = archive.read(f"recbole/dataset_example/ml-100k/ml-100k.{suffix}")
        return _text(raw.split(b"\n", 1)[1], names, "\t")

    items = read("item", ["item", "title", "year", "genres"]).to_pydict()
    # The wheel spells the one film without a name "unkonwn", its title and its year alike.
    title = ["unknown" if text == "unkonwn" else text for text in items["title"]]
    genres = [text.split() for text in items["genres"]]
    ratings = read("inter", ["user", "item", "rating", "timestamp"])
    return {
        "interactions": _integers(ratings, *_RATINGS),
        "items": _films([int(i) for i in items["item"]], title, items["year"], genres),
        "users": _integers(
            read("user", ["user", "age", "gender", "occupation", "zip"]), "user", "age"
        ),
        "knowledge": read("kg", ["head", "relation", "tail"]),
        "links": _integers(read("link", ["item", "entity"]), "item"),
    }


def movielens_100k_grouplens(path: Path) -> Tables:
    """The publisher's ml-100k.zip; it carries no knowledge graph."""
    with zipfile.ZipFile(path) as archive:
        ratings = archive.read("ml-100k/u.data")
        films = archive.read("ml-100k/u.item")
        users = archive.read("ml-100k/u.user")
    names = ["item", "title", "date", "video", "url", *GENRES_100K]
    items = _text(films, names, "|", "latin-1").to_pydict()
    genres = [
        [genre for genre in GENRES_100K if items[genre][row] == "1"]
        for row in range(len(items["item"]))
    ]
    year = [None] * len(genres)
    return {
        "interactions": _integers(_text(ratings, list(_RATINGS), "\t"), *_RATINGS),
        "items": _films([int(i) for i in items["item"]], items["title"], year, genres),
        "users": _integers(
            _text(users, ["user", "age", "gender", "occupation", "zip"], "|"), "user", "age"
        ),
    }


def movielens_1m_parquet(folder: Path) -> Tables:
    """Local folder: ratings with the place of each in its user's history, items, users."""
    items = pq.read_table(folder / "items.parquet").to_pydict()
    genres = [text.split("|") for text in items["genres"]]
    users = pq.read_table(folder / "users.parquet")
    return {
        "interactions": _columns(
            pq.read_table(folder / "ratings.parquet"), **_RATINGS, position="pos"
        ),
        "items": _films(items["item"], items["title"], items["year"], genres),
        "users": _columns(users, **{name: name for name in users.column_names}),
    }


def movielens_1m_grouplens(path: Path) -> Tables:
    """The publisher's ml-1m.zip, whose columns are parted by two colons."""

    def read(name: str, columns: list[str]) -> pa.Table:
        with zipfile.ZipFile(path) as archive:
            raw = archive.read(f"ml-1m/{name}.dat").replace(b"::", b"\x01")
        return _text(raw, columns, "\x01", "latin-1")

    items = read("movies", ["item", "title", "genres"]).to_pydict()
    genres = [text.split("|") for text in items["genres"]]
    year = [None] * len(genres)
    return {
        "interactions": _integers(read("ratings", list(_RATINGS)), *_RATINGS),
        "items": _films([int(i) for i in items["item"]], items["title"], year, genres),
        "users": _integers(
            read("users", ["user", "gender", "age", "occupation", "zip"]),
            "user",
            "age",
            "occupation",
        ),
    }


def given_split(folder: Path) -> Tables:
    """Local folder with train and test; the ids of the split stay, the originals are a field."""
    items = pq.read_table(folder / "items.parquet")
    users = pq.read_table(folder / "users.parquet")
    return {
        "train": _columns(pq.read_table(folder / "train.parquet"), user="user", item="item"),
        "test": _columns(pq.read_table(folder / "test.parquet"), user="user", item="item"),
        "items": _columns(items, item="item", original="org_id"),
        "users": _columns(users, user="user", original="org_id"),
    }


def attributed_sequences(folder: Path) -> Tables:
    """Local folder with each user's items in order and the items' numbered attributes.

    Of a repeated (user, item) pair the first row is kept, at its place: so whether a row is there
    never depends on a later one. An item's categories are those of its attributes that at least
    one item in a hundred carries; where it has none of them, the list is empty.
    """
    rows = _columns(
        pq.read_table(folder / "sequences.parquet"), user="user", item="item", position="pos"
    )
    first = rows.group_by(["user", "item"], use_threads=False).aggregate([("position", "min")])
    item = pc.unique(rows["item"]).sort()
    pairs = _columns(
        pq.read_table(folder / "item_attributes.parquet"), item="item", attribute="attribute"
    )
    carriers = pairs.group_by("attribute", use_threads=False).aggregate(
        [("item", "count_distinct")]
    )
    frequent = carriers.filter(
        pc.greater_equal(pc.multiply(carriers["item_count_distinct"], 100), len(item))
    )["attribute"]
    pairs = pairs.filter(pc.is_in(pairs["attribute"], value_set=frequent.combine_chunks()))
    names: dict[int, list[str]] = {number: [] for number in item.to_pylist()}
    for number, attribute in zip(*pairs.to_pydict().values(), strict=True):
        names[number].append(f"attribute {attribute}")
    return {
        "interactions": _columns(first, user="user", item="item", position="position_min"),
        "items": pa.table(
            {
                "item": item,
                "categories": pa.array(map(sorted, names.values()), pa.list_(pa.string())),
            }
        ),
    }


def labelled(folder: Path) -> Tables:
    """Local folder with labelled_validation and labelled_test: the first is what there is to train
    on, as the training file of that split was not to be had."""
    tables = {}
    for name, file in (("train", "labelled_validation"), ("test", "labelled_test")):
        table = pq.read_table(folder / f"{file}.parquet")
        tables[name] = _columns(table, **{column: column for column in table.column_names})
    return tables


ADAPTERS: dict[str, Callable[[Path], Tables]] = {
    adapter.__name__: adapter
    for adapter in (
        movielens_100k_parquet,
        movielens_100k_recbole,
        movielens_100k_grouplens,
        movielens_1m_parquet,
        movielens_1m_grouplens,
        given_split,
        attributed_sequences,
        labelled,
    )
}


def join_companion(tables: Tables, companion: Path) -> None:
    """Adds title, categories and year of the companion's items, by the original item id."""
    other = pq.read_table(companion / "items.parquet")
    original = tables["items"]["original"].cast(pa.int64())
    row = pc.index_in(original, value_set=other["item"])
    if row.null_count:
        missing = original.filter(pc.is_null(row))[0]
        raise ValueError(f"{companion / 'items.parquet'} lacks item {missing}")
    for name in ("title", "categories", "year"):
        tables["items"] = tables["items"].append_column(name, other[name].take(row))


def count(tables: Tables) -> dict[str, int]:
    """Users, items and interactions that occur, rows of a given split, triples."""
    names = [name for name in ("interactions", "train", "valid", "test") if name in tables]
    parts = [tables[name] for name in names]
    counts = {
        "users": len(pc.unique(pa.concat_tables([p.select(["user"]) for p in parts])["user"])),
        "items": len(pc.unique(pa.concat_tables([p.select(["item"]) for p in parts])["item"])),
        "interactions": sum(len(part) for part in parts),
    }
    counts.update({name: len(tables[name]) for name in names if name != "interactions"})
    if "knowledge" in tables:
        counts["triples"] = len(tables["knowledge"])
    return counts


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write(tables: Tables, entry: Entry, source: str, folder: Path) -> None:
    """Writes the data-set folder; ValueError if the counts are not those of the catalogue."""
    counts = count(tables)
    for name, expected in entry.counts.items():
        if name in counts and counts[name] != expected:
            raise ValueError(
                f"{entry.name} from {source}: {counts[name]:,} {name}; expected {expected:,}"
            )
    for name, table in tables.items():
        pq.write_table(table, folder / f"{name}.parquet")
    about = {
        "format": FORMAT,
        "name": entry.name,
        "description": f"{entry.title}. {entry.description}",
        "licence": entry.licence,
        "publisher": entry.publisher,
        "source": source,
        "category_kind": entry.category_kind,
        "counts": counts,
        "files": {f"{name}.parquet": sha256(folder / f"{name}.parquet") for name in tables},
    }
    text = json.dumps(about, indent=2, ensure_ascii=False) + "\n"
    (folder / "dataset.json").write_text(text, encoding="utf-8")
