"""Kills, full disks, damaged files and twins at random moments: nothing false, nothing lost.

The long form, about ten minutes on two cores:

    INFOREC_FAULTS=200 pytest -s tests/test_faults.py
"""

import itertools
import math
import os
import random
import shutil
import time
from collections import Counter
from multiprocessing import get_context

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import faulty_grid
from inforec import results
from inforec.data import load

FAULTS = int(os.environ.get("INFOREC_FAULTS", 16))
KINDS = (
    *("killed at a random time", "killed within a moment", "disk full", "file cut by the system"),
    *("file damaged", "clock jumps", "two grids at once", "no folder"),
)
KEPT = {".json", ".npz", ".weights"}


def forkserver():
    """Processes forked from one that has imported torch."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["pytest", "inforec.experiment"])
    return context


class Grid:
    """A store, and the processes that fill it; they are forked from one that has imported torch."""

    def __init__(self, data, store):
        self.data, self.store = data, store
        self.context = forkserver()
        self.written, self.damaged = set(), set()
        self.weights_lost = False

    def start(self, store=None, **fault):
        ours, theirs = self.context.Pipe(duplex=False)
        process = self.context.Process(
            target=faulty_grid.work, args=(self.data, store or self.store, fault, theirs)
        )
        process.start()
        theirs.close()
        return process, ours

    def end(self, process, pipe):
        """Wait for the process; (exit code, its last words, or None). Keeps what it reported."""
        words = None
        try:
            while pipe.poll(120):
                kind, *rest = pipe.recv()
                if kind == "written":
                    self.written.add(rest[0])
                else:
                    words = (kind, *rest)
        except EOFError:
            pass
        process.join(120)
        code = process.exitcode
        assert code in (0, -9), f"the process ended with {code}: its trace is above"
        process.close()
        pipe.close()
        return code, words

    def run(self, **fault):
        return self.end(*self.start(**fault))

    def check(self, wanted):
        """No record is false, and whatever was reported as written is there."""
        records = {r.run_id: r for r in results.load(self.store) if r.run_id in wanted}
        assert self.written <= set(records), "a record that was reported as written is lost"
        assert len(records) == len(list(self.store.glob("*.json")))
        for name, record in records.items():
            numbers, history, arrays = wanted[name]
            assert faulty_grid.numbers(record) == numbers
            # The history stays with the run that trained: another one, where weights were lost.
            assert self.weights_lost or faulty_grid.history(record) == history
            if record.arrays is not None:
                assert record.arrays.keys() == arrays.keys()
                for array, values in record.arrays.items():
                    assert values.tobytes() == arrays[array].tobytes()


def damage(grid, draw):
    """Flip a bit of a file of the store, cut it short, or empty it; its path."""
    files = sorted(path for path in grid.store.glob("[!.]*") if path not in grid.damaged)
    if not files:
        return None
    path = draw.choice(files)
    raw = bytearray(path.read_bytes())
    how = draw.choice(["flip", "flip", "cut", "empty"])
    if how == "flip":
        raw[draw.randrange(len(raw))] ^= 1 << draw.randrange(8)
    path.write_bytes(raw if how == "flip" else raw[: draw.randrange(len(raw))] * (how == "cut"))
    grid.damaged.add(path)
    return path


def strike(kind, grid, draw, seconds, moments):
    """One fault; whether it struck."""
    delay = math.exp(draw.uniform(math.log(0.005), math.log(1.2 * seconds)))
    moment = {"part": draw.choice([0.0, 0.5]), "clock": draw.random() < 0.2}
    if kind == "killed at a random time":
        process, pipe = grid.start()
        time.sleep(delay)
        process.kill()
        return grid.end(process, pipe)[0] == -9
    if kind == "killed within a moment":
        return grid.run(kill=draw.randint(1, moments), **moment)[0] == -9
    if kind in ("disk full", "file cut by the system"):
        if kind == "disk full":
            fault = {"full": draw.randint(1, moments), **moment}
        else:
            fault = {"limit": int(math.exp(draw.uniform(math.log(50), math.log(15_000))))}
        _, words = grid.run(**fault)
        if words[0] == "moments":
            return False
        assert words[0] == "OSError" and str(grid.store) in words[1], words
        assert "No space left" in words[1] or "File too large" in words[1], words
        assert "\n" not in words[1]
        return True
    if kind == "file damaged":
        if damage(grid, draw) is None:
            return False
        grid.written -= {path.stem for path in grid.damaged if path.suffix == ".json"}
        return True
    if kind == "clock jumps":
        return grid.run(clock=True, kill=draw.randint(1, 2 * moments))[1] is not None
    if kind == "two grids at once":
        twins = [grid.start(), grid.start()]
        time.sleep(delay)
        draw.choice(twins)[0].kill()
        return -9 in [grid.end(*twin)[0] for twin in twins]
    file = grid.store.parent / "file"
    file.touch()
    _, words = grid.run(store=file / "study")
    assert words[0] == "NotADirectoryError" and str(file / "study") in words[1], words
    return True


def recover(grid):
    """Start again until the grid is done, doing what the errors say."""
    for _ in range(20):
        code, words = grid.run()
        assert code == 0
        if words[0] == "moments":
            return
        assert words[0] == "ValueError" and "delete" in words[1] and "\n" not in words[1], words
        named = [path for path in grid.damaged if str(path) in words[1]]
        assert named, f"an error that names no damaged file: {words}"
        named[0].unlink()
        grid.damaged -= set(named)
        grid.weights_lost |= named[0].suffix == ".weights"
    raise AssertionError("the grid does not end")


@pytest.mark.slow
def test_faults_at_random_moments(tiny_folder, tmp_path):
    grid = Grid(tiny_folder, tmp_path / "undisturbed" / "study")
    grid.run()
    shutil.rmtree(grid.store)
    start = time.monotonic()
    _, (_, moments) = grid.run()
    seconds = time.monotonic() - start
    wanted = {
        r.run_id: (faulty_grid.numbers(r), faulty_grid.history(r), r.arrays)
        for r in results.load(grid.store)
    }
    assert len(wanted) == 4 and {path.suffix for path in grid.store.iterdir()} == KEPT

    draw, struck, grids = random.Random(2026), Counter(), 0
    kinds = itertools.cycle(KINDS)
    while sum(struck.values()) < FAULTS:
        # One store suffers a few faults, and must then end as the undisturbed one did.
        grids += 1
        grid = Grid(tiny_folder, tmp_path / f"store{grids}" / "study")
        grid.store.mkdir(parents=True)
        for _ in range(draw.randint(2, 6)):
            kind = next(kinds)
            struck[kind] += strike(kind, grid, draw, seconds, moments)
            if not grid.damaged:
                grid.check(wanted)
        recover(grid)
        grid.check(wanted)
        assert {path.stem for path in grid.store.glob("*.json")} == set(wanted)
        results.prepare(grid.store)  # as the next run would
        left = [path.name for path in grid.store.iterdir() if path.suffix not in KEPT]
        assert left == []
        shutil.rmtree(grid.store.parent)
        total = sum(struck.values())
        print(f"{total} faults on {grids} grids of {moments} moments: {dict(struck)}", flush=True)
    assert set(struck) == set(KINDS) and all(struck.values())


@pytest.mark.slow
def test_a_fetch_killed_at_random_moments(tmp_path):
    """What lies in the cache under the name of the data set is whole, or nothing is."""
    shelf = tmp_path / "shelf" / "tiny"
    shelf.mkdir(parents=True)
    tables = {
        "train": {"user": [0, 0, 1], "item": [0, 1, 1]},
        "test": {"user": [1], "item": [2]},
        "users": {"user": [0, 1], "org_id": ["a", "b"]},
        "items": {"item": [0, 1, 2], "org_id": ["1", "2", "267"]},
    }
    for name, columns in tables.items():
        pq.write_table(pa.table(columns), shelf / f"{name}.parquet")
    context = forkserver()
    draw, cache, killed = random.Random(2026), tmp_path / "cache" / "data", 0
    while killed < max(4, FAULTS // 8):
        fault = {"kill": draw.randint(1, 6), "part": draw.choice([0.0, 0.5])}
        process = context.Process(target=faulty_grid.fetch, args=(shelf, cache.parent, fault))
        process.start()
        process.join(120)
        killed += process.exitcode == -9
        assert process.exitcode in (0, -9)
        process.close()
        if (cache / "tiny").exists():
            assert load(cache / "tiny", split="given").num_users == 2  # compares every sum
            shutil.rmtree(cache / "tiny")
    process = context.Process(target=faulty_grid.fetch, args=(shelf, cache.parent, {}))
    process.start()
    process.join(120)
    assert process.exitcode == 0 and load(cache / "tiny", split="given").num_users == 2
    assert [path.name for path in cache.iterdir() if path.suffix != ".lock"] == ["tiny"]
