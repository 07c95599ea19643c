"""Fetching: the first source that answers, verified, and all of it or nothing."""

import errno
import http.server
import io
import os
import shutil
import subprocess
import sys
import textwrap
import threading
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from inforec.data import load, prepare
from inforec.data.catalog import CATALOG, Source
from inforec.data.fetch import fetch, fetched


def _left(cache):
    """What lies in the cache, but for the locks, which hold nothing."""
    return sorted(path.name for path in cache.glob("*") if path.suffix != ".lock")


def test_local_folder_is_prepared_and_kept(local, cache):
    assert not fetched("tiny")
    folder = fetch("tiny")
    assert folder == cache / "tiny" and fetched("tiny")
    names = sorted(path.name for path in folder.iterdir())
    assert names == [
        "dataset.json",
        "items.parquet",
        "test.parquet",
        "train.parquet",
        "users.parquet",
    ]
    for path in local.iterdir():
        path.unlink()
    assert load("tiny", split="given").item_fields == {"original": ("1", "2", "267")}
    assert _left(cache) == ["tiny"]


@pytest.mark.parametrize("change", ["truncated", "altered"])
def test_a_bad_local_file_stops_and_leaves_nothing(local, cache, change):
    path = local / "train.parquet"
    raw = path.read_bytes()
    path.write_bytes(raw[:-9] if change == "truncated" else raw[:20] + b"?" + raw[21:])
    with pytest.raises(ValueError, match=r"train.parquet: the file is truncated or was altered"):
        fetch("tiny")
    assert _left(cache) == [] and not fetched("tiny")


def test_a_local_folder_with_part_of_the_files_is_an_error(local, cache):
    (local / "test.parquet").unlink()
    with pytest.raises(ValueError, match=r"test.parquet is missing; .* has only part of the files"):
        fetch("tiny")
    assert _left(cache) == []


def test_wrong_counts_are_rejected(local, cache, entry):
    entry(*CATALOG["tiny"].sources, counts={"users": 2, "items": 3, "interactions": 5})
    with pytest.raises(ValueError, match="tiny from INFOREC_DATA: 4 interactions; expected 5"):
        fetch("tiny")
    assert _left(cache) == []


def test_an_altered_cache_is_noticed(local, cache):
    folder = fetch("tiny")
    table = pq.read_table(folder / "train.parquet")
    pq.write_table(table.slice(1), folder / "train.parquet")
    with pytest.raises(ValueError, match=r"is not the one that dataset.json lists"):
        load("tiny", split="given")


def test_an_older_format_is_prepared_again(local, cache, monkeypatch):
    folder = fetch("tiny")
    (folder / "old.txt").write_text("old")
    monkeypatch.setattr(prepare, "FORMAT", prepare.FORMAT + 1)
    assert not fetched("tiny")
    fetch("tiny")
    assert fetched("tiny") and not (folder / "old.txt").exists()


def test_without_any_source_each_answer_is_told(cache, entry, monkeypatch):
    entry(
        Source("local", "given_split", {"train.parquet": "00"}),
        Source("archive", "given_split", {"tiny.zip": "00"}, "http://127.0.0.1:9/tiny.zip"),
    )
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(ConnectionError) as caught:
        fetch("tiny")
    text = str(caught.value)
    assert "tiny is not to be had" in text and "INFOREC_DATA (not set)" in text
    assert "http://127.0.0.1:9/tiny.zip does not answer" in text
    assert "https://example.org/tiny" in text
    assert _left(cache) == []


def test_a_companion_gives_titles_and_categories(local, cache, entry, monkeypatch, capsys):
    source = CATALOG["tiny"].sources[0]
    entry(source, companion="films")
    entry(name="films")
    fetch("tiny")
    assert load("tiny", split="given").item_titles is None
    assert "without titles and categories, as films is not to be had" in capsys.readouterr().err

    def films(folder):
        rated = {"user": [0, 0, 0, 0], "item": [1, 2, 267, 3]}
        items = {"item": [1, 2, 3, 267], "title": list("abcd"), "year": [1, 2, 3, 4]}
        lists = pa.array([["x"], ["y"], [], ["x", "z"]], pa.list_(pa.string()))
        items = pa.table({**items, "categories": lists})
        return {"interactions": pa.table(rated), "items": items}

    shutil.rmtree(cache / "tiny")
    monkeypatch.setitem(prepare.ADAPTERS, "films", films)
    (local.parent / "films").mkdir()
    (local.parent / "films" / "raw").touch()
    empty = prepare.sha256(local.parent / "films" / "raw")
    entry(Source("local", "films", {"raw": empty}), name="films", counts={})
    dataset = load("tiny", split="given")
    assert dataset.item_titles == ("a", "b", "d")
    assert dataset.category_NC.tolist() == [[1, 0, 0], [0, 1, 0], [0.5, 0, 0.5]]


# ---- the package that pip downloads -------------------------------------------------------------


@pytest.fixture
def offline(monkeypatch):
    """pip without an index; it may look into the folder that the test names."""
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    return monkeypatch


def _wheel_source(sha):
    return Source(
        "wheel",
        "movielens_100k_recbole",
        {"recbole-1.2.1-py3-none-any.whl": sha},
        "recbole==1.2.1",
        1000,
    )


def test_pip_brings_the_wheel(wheel, cache, entry, offline, capfd):
    offline.setenv("PIP_FIND_LINKS", str(wheel.parent))
    entry(_wheel_source(prepare.sha256(wheel)), category_kind="genres")
    folder = fetch("tiny")
    out, err = capfd.readouterr()
    assert out == "" and "recbole-1.2.1-py3-none-any.whl" in err  # the bar, and only there
    assert _left(cache) == ["tiny"]
    items = pq.read_table(folder / "items.parquet").to_pydict()
    assert items["title"] == ["Toy Story", '"Quoted" Film, The', "unknown"]
    assert items["year"] == [1995, 1995, None]
    assert items["categories"] == [["Animation", "Children's", "Comedy"], ["Sci-Fi"], ["unknown"]]
    users = pq.read_table(folder / "users.parquet").to_pydict()
    assert users["zip"] == ["85711", "01940"] and users["age"] == [24, 53]


def test_an_altered_wheel_stops_and_leaves_nothing(wheel, cache, entry, offline):
    offline.setenv("PIP_FIND_LINKS", str(wheel.parent))
    entry(_wheel_source("00" * 32))
    with pytest.raises(ValueError, match=r"recbole.*whl: the file is truncated or was altered"):
        fetch("tiny")
    assert _left(cache) == []


def test_a_truncated_wheel_stops_and_leaves_nothing(wheel, cache, entry, offline):
    sha = prepare.sha256(wheel)
    wheel.write_bytes(wheel.read_bytes()[:-200])
    offline.setenv("PIP_FIND_LINKS", str(wheel.parent))
    entry(_wheel_source(sha))
    with pytest.raises(ConnectionError, match=r"pip could not download recbole==1.2.1: .*invalid"):
        fetch("tiny")
    assert _left(cache) == []


def test_no_network_is_told(cache, offline, entry):
    entry(*CATALOG["ml-100k"].sources[:2], name="ml-100k")
    with pytest.raises(ConnectionError, match=r"pip could not download recbole==1.2.1: ERROR: No"):
        fetch("ml-100k")
    assert _left(cache) == []


# ---- the publisher's archive --------------------------------------------------------------------


@pytest.fixture
def server(wheel, monkeypatch):
    """Serves the fake wheel as an archive; ``/short`` breaks off in the middle."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            raw = wheel.read_bytes()
            if self.path == "/gone":
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw[: len(raw) // 2] if self.path == "/short" else raw)

        def log_message(self, *_):
            pass

    monkeypatch.setenv("no_proxy", "*")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def _archive(url, sha):
    return Source("archive", "movielens_100k_recbole", {"tiny.zip": sha}, url)


def test_an_archive_is_downloaded_with_a_bar(server, wheel, cache, entry, capfd):
    entry(_archive(server + "/whole", prepare.sha256(wheel)))
    assert load("tiny", min_rating=0, min_interactions=1).source == server + "/whole"
    assert "tiny.zip" in capfd.readouterr().err
    assert _left(cache) == ["tiny"]


def test_an_altered_archive_stops_and_leaves_nothing(server, cache, entry):
    entry(_archive(server + "/whole", "11" * 32))
    with pytest.raises(ValueError, match=r"tiny.zip: the file is truncated or was altered"):
        fetch("tiny")
    assert _left(cache) == []


def test_a_source_that_breaks_off_is_passed_over(server, wheel, cache, entry):
    sha = prepare.sha256(wheel)
    entry(_archive(server + "/short", sha))
    with pytest.raises(ConnectionError, match=r"broke off after \d+ of [\d,]+ bytes"):
        fetch("tiny")
    assert _left(cache) == []
    sources = [_archive(server + path, sha) for path in ("/gone", "/short", "/whole")]
    entry(*sources)
    fetch("tiny")
    assert load("tiny", min_rating=0, min_interactions=1).source == server + "/whole"


def test_a_full_disk_is_not_taken_for_a_silent_source(server, wheel, cache, entry, monkeypatch):
    class Full(io.FileIO):
        def write(self, content):
            raise OSError(errno.ENOSPC, "No space left on device")

    entry(_archive(server + "/whole", prepare.sha256(wheel)))
    monkeypatch.setattr("inforec.data.fetch.open", Full, raising=False)
    with pytest.raises(OSError, match=r"No space left on device: '.*\.partial'"):
        fetch("tiny")
    assert _left(cache) == []


# ---- two processes at once, and a kill ----------------------------------------------------------

SCRIPT = """
import os, sys, time
from pathlib import Path
from inforec.data import fetch as module
from inforec.data import prepare
from inforec.data.catalog import CATALOG, Entry, Source

work, mode = Path(sys.argv[1]), sys.argv[2]
folder = work / "shelf" / "tiny"
files = {path.name: prepare.sha256(path) for path in folder.iterdir()}
CATALOG["tiny"] = Entry("tiny", "t", "d", "l", "p", (Source("local", "given_split", files),),
                        {"interactions": 4}, ("given",))
given = prepare.ADAPTERS["given_split"]

def slow(folder):
    with open(work / "log", "a") as log:
        log.write("prepared\\n")
    time.sleep(0.3)
    return given(folder)

def write_table(table, path):
    Path(path).write_bytes(b"half")
    (work / "half").touch()
    time.sleep(60)

prepare.ADAPTERS["given_split"] = slow
if mode == "hang":
    prepare.pq.write_table = write_table
(work / f"ready{os.getpid()}").touch()
while mode == "meet" and len(list(work.glob("ready*"))) < 2:
    time.sleep(0.01)
print(module.fetch("tiny"))
"""


def _start(tmp_path, mode):
    script = tmp_path / "fetch_tiny.py"
    script.write_text(textwrap.dedent(SCRIPT))
    return subprocess.Popen(
        [sys.executable, str(script), str(tmp_path), mode],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_processes_at_once_both_end_well(local, cache, tmp_path):
    both = [_start(tmp_path, "meet") for _ in range(2)]
    answers = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], answers
    assert [out.strip() for out, _ in answers] == [str(cache / "tiny")] * 2
    assert (tmp_path / "log").read_text() == "prepared\n"  # one of them worked, the other waited
    assert _left(cache) == ["tiny"]


def test_a_killed_fetch_leaves_no_half_made_data_set(local, cache, tmp_path):
    process = _start(tmp_path, "hang")
    for _ in range(600):
        if (tmp_path / "half").exists() or process.poll() is not None:
            break
        time.sleep(0.05)
    process.kill()
    process.communicate()
    assert (tmp_path / "half").exists() and process.returncode < 0
    assert not (cache / "tiny").exists() and not fetched("tiny")
    assert load("tiny", split="given").num_users == 2
    assert _left(cache) == ["tiny"]  # the half-made folder of the killed process is gone
