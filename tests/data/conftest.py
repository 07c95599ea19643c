"""A cache of its own for each test, small data-set folders, and small fake sources."""

import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from inforec.data import prepare
from inforec.data.catalog import CATALOG, Entry, Source

FILMS = {
    "inter": (
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
        "1\t1\t5\t10\n1\t2\t4\t20\n1\t267\t3\t30\n2\t1\t4\t40\n"
    ),
    "item": (
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
        "1\tToy Story\t1995\tAnimation Children's Comedy\n"
        '2\t"Quoted" Film, The (1995)\tV\tSci-Fi\n'
        "267\tunkonwn\tunkonwn\tunknown\n"
    ),
    "user": "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n"
    "1\t24\tM\ttechnician\t85711\n2\t53\tF\tother\t01940\n",
    "kg": "head_id:token\trelation_id:token\ttail_id:token\nm.a\tr.of\tm.b\nm.c\tr.in\tm.a\n",
    "link": "item_id:token\tentity_id:token\n2\tm.a\n",
}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache and nothing on INFOREC_DATA; gives the folder of prepared data sets."""
    monkeypatch.setenv("INFOREC_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("INFOREC_DATA", raising=False)
    return tmp_path / "cache" / "data"


@pytest.fixture
def write(tmp_path):
    """Writes tables, given as columns, into a data-set folder and gives the folder."""

    def write(**tables):
        folder = tmp_path / "own"
        folder.mkdir(exist_ok=True)
        for name, columns in tables.items():
            if columns is not None:
                pq.write_table(pa.table(columns), folder / f"{name}.parquet")
        return folder

    return write


@pytest.fixture
def wheel(tmp_path):
    """A wheel of the name and layout that carries MovieLens-100K, with four ratings in it."""
    folder = tmp_path / "links"
    folder.mkdir()
    path = folder / "recbole-1.2.1-py3-none-any.whl"
    about = "recbole-1.2.1.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for suffix, text in FILMS.items():
            archive.writestr(f"recbole/dataset_example/ml-100k/ml-100k.{suffix}", text)
        archive.writestr(
            f"{about}/METADATA", "Metadata-Version: 2.1\nName: recbole\nVersion: 1.2.1\n"
        )
        archive.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{about}/RECORD", "")
    return path


@pytest.fixture
def entry(monkeypatch):
    """Puts a data set 'tiny' with the given sources into the catalogue."""

    def entry(*sources, **changes):
        known = {
            "name": "tiny",
            "title": "Tiny",
            "description": "Four ratings.",
            "licence": "none",
            "publisher": "https://example.org/tiny",
            "sources": sources,
            "counts": {"users": 2, "items": 3, "interactions": 4},
            "splits": ("random",),
        }
        made = Entry(**{**known, **changes})
        monkeypatch.setitem(CATALOG, made.name, made)
        return made

    return entry


@pytest.fixture
def local(tmp_path, monkeypatch, entry, cache):
    """'tiny' as a folder with a given split on INFOREC_DATA; gives that folder."""
    folder = tmp_path / "shelf" / "tiny"
    folder.mkdir(parents=True)
    tables = {
        "train": {"user": [0, 0, 1], "item": [0, 1, 1]},
        "test": {"user": [1], "item": [2]},
        "users": {"user": [0, 1], "org_id": ["a", "b"]},
        "items": {"item": [0, 1, 2], "org_id": ["1", "2", "267"]},
    }
    for name, columns in tables.items():
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    files = {path.name: prepare.sha256(path) for path in sorted(folder.iterdir())}
    entry(Source("local", "given_split", files))
    monkeypatch.setenv("INFOREC_DATA", str(folder.parent))
    return folder
