"""The grid of `test_faults.py`: what runs in a process of its own, and the faults that befall it.

A moment is a write, a rename, a removal or a forced write to the disk, of what the package keeps.
"""

import errno
import io
import itertools
import json
import os
import random
import resource
import signal
import threading
import time
import types

import torch
from tqdm import tqdm

from inforec import data, results
from inforec.data import prepare
from inforec.data.catalog import CATALOG, Entry, Source
from inforec.experiment import RunConfig, run


def configs(folder):
    """Two trainings, a reranker on the weights of the first, and a closed form."""
    settings = {"dataset": str(folder), "k": 5, "validate_every": 1, "device": "cpu"}
    first = {**settings, "model": "mf", "options": {"dim": 4}, "alpha": 0.1, "epochs": 5}
    return [
        RunConfig(**first),
        RunConfig(**{**settings, "model": "lightgcn", "loss": "bpr", "epochs": 4}),
        RunConfig(**first, reranker="steck", candidates=10),
        RunConfig(**{**settings, "model": "popularity"}),
    ]


def numbers(record):
    """All that must not depend on what befell the run, as text, in which NaN equals NaN."""
    users = {name: values.tolist() for name, values in record.users.items()}
    parts = (record.config, record.study, record.valid, record.test, record.law, users)
    return json.dumps(parts, sort_keys=True)


def history(record):
    """The history as text, without its seconds."""
    return json.dumps([{**entry, "seconds": 0} for entry in record.history], sort_keys=True)


def work(folder, store, fault, pipe):
    """Run the grid; send the id of each record once it is reported as written, then "moments".

    What a user would be told is sent as well; every other exception ends the process with a trace.
    """
    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())  # its own would be one of the system, which a kill leaves
    results._git = lambda *arguments: None  # a process less for each record
    moments = Moments(**fault)
    try:
        for config in configs(folder):
            record = run(config, results=store, per_user=True, progress=False)
            pipe.send(("written", record.run_id))
        pipe.send(("moments", moments.passed))
    except (ValueError, OSError) as error:
        pipe.send((type(error).__name__, str(error)))


def fetch(shelf, cache, fault):
    """Fetch a small data set from the shelf into the cache."""
    os.environ |= {"INFOREC_CACHE": str(cache), "INFOREC_DATA": str(shelf.parent)}
    files = {path.name: prepare.sha256(path) for path in shelf.iterdir()}
    source = Source("local", "given_split", files)
    CATALOG["tiny"] = Entry("tiny", "t", "d", "l", "p", (source,), {}, ("given",))
    moments = Moments(**fault)
    prepare.pq.write_table = moments.counted(prepare.pq.write_table, "write_table")
    data.fetch.fetch("tiny")


class Moments:
    """Counts moments, and strikes.

    Args:
        kill: the number of the moment in which the process kills itself.
        full: that from which on nothing can be written.
        part: how much of a write goes through in the moment of the strike; for the others, whether
            the strike comes before (0) or after.
        limit: bytes at which the operating system cuts every file.
        clock: whether the wall clock jumps by years, back and forth, whenever it is read.
    """

    def __init__(self, kill=None, full=None, part=0.0, limit=None, clock=False):
        self.kill, self.full, self.part, self.passed = kill, full, part, 0
        moments = self

        class File(io.FileIO):
            def write(self, content):
                content = memoryview(content).cast("B")
                return moments.do(super().write, content)

        def opened(path, mode):
            # Buffered, as by open() itself: a raw file reports a cut write only as a smaller count.
            return io.BufferedWriter(File(path, mode)) if mode == "wb" else open(path, mode)

        results.open = opened
        for name in ("replace", "unlink", "fsync"):
            setattr(os, name, self.counted(getattr(os, name), name))
        if limit is not None:
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        if clock:
            jump_clock()

    def counted(self, function, name):
        return lambda *arguments, **options: self.do(function, *arguments, **options, _name=name)

    def do(self, function, *arguments, _name="write", **options):
        self.passed += 1
        part = self.part if _name == "write" else 0.0
        struck = self.passed == self.kill
        full = self.full is not None and self.passed >= self.full and _name != "unlink"
        if part and (struck or full):
            function(arguments[0][: int(part * len(arguments[0]))])
        if struck and self.part and _name != "write":
            function(*arguments, **options)
        if struck:
            os.kill(os.getpid(), signal.SIGKILL)
        if full:
            named = [str(arguments[0])] if _name == "replace" else []  # as the system does it
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *named)
        return function(*arguments, **options)


def jump_clock():
    draw, real = random.Random(0), time.time
    jumps = iter(lambda: draw.uniform(-1.5e9, 1.5e9), None)
    time.time = lambda: real() + next(jumps)
    time.time_ns = lambda: int(time.time() * 1e9)
    years = itertools.cycle([1970, 2038, 1999, 2100])
    library = results.datetime

    class Clock(library.datetime):
        @classmethod
        def now(cls, tz=None):
            return library.datetime(next(years), 1, 1, tzinfo=tz)

    results.datetime = types.SimpleNamespace(datetime=Clock, UTC=library.UTC)
