"""Same seed, same machine, same number of threads: the same bits. And a hundred runs leave nothing.

`test_gpu.py` asks the same of a CUDA device, with PyTorch's deterministic algorithms.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from faulty_grid import numbers
from inforec.experiment import RunConfig, run, trained

MODELS = ("mf", "lightgcn", "sgl", "xsimgcl", "multvae", "din")


def digest(data, labelled, model, device="cpu"):
    """SHA-256 over every number of a run: record, lists or logits, and trained weights."""
    settings = {"epochs": 4, "validate_every": 2, "batch_size": 64, "device": device}
    if model == "din":
        config = RunConfig(dataset=str(labelled), model=model, loss="logistic", **settings)
    else:
        config = RunConfig(dataset=str(data), model=model, k=5, alpha=0.1, beta=0.01, **settings)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder) / "study"
        record = run(config, results=folder, progress=False)
        weights = trained(config, folder)[0].state_dict()
    total = hashlib.sha256(numbers(record).encode())
    for name, array in sorted(record.arrays.items()):
        total.update(name.encode() + array.tobytes())
    for name, tensor in sorted(weights.items()):
        total.update(name.encode() + tensor.cpu().numpy().tobytes())
    return total.hexdigest()


def write_labelled(folder):
    """A folder of labelled rows for the click-through model."""
    folder.mkdir()
    row = range(400)
    columns = {
        "user": [i % 20 for i in row],
        "item": [(7 * i + i // 20) % 15 for i in row],
        "position": [i // 20 for i in row],
        "label": [int((i % 20 + (7 * i + i // 20) % 15) % 2) for i in row],
    }
    pq.write_table(pa.table(columns), folder / "impressions.parquet")
    return folder


def elsewhere(data, labelled, device, **environment):
    """The digests of all models, made in a process of its own."""
    script = (
        "import json, sys; import torch, test_determinism as own\n"
        "if sys.argv[3] == 'cuda': torch.use_deterministic_algorithms(True)\n"
        "print(json.dumps({m: own.digest(*sys.argv[1:3], m, sys.argv[3]) for m in own.MODELS}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(data), str(labelled), device],
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads()), **environment},
        cwd=Path(__file__).parent,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_the_same_seed_gives_the_same_bits(tiny_folder, tmp_path):
    labelled = write_labelled(tmp_path / "labelled")
    here = {model: digest(tiny_folder, labelled, model) for model in MODELS}
    assert len(set(here.values())) == len(MODELS)
    again = {model: digest(tiny_folder, labelled, model) for model in reversed(MODELS)}
    assert again == here
    assert elsewhere(tiny_folder, labelled, "cpu") == here


LEAKS = """
import gc, os, sys
import torch
from inforec import results
from inforec.experiment import RunConfig, run

torch.set_num_threads(1)
results._git = lambda *arguments: None

def runs(seeds):
    for seed in seeds:
        for model, options in (("mf", {"dim": 64}), ("xsimgcl", {"dim": 64})):
            config = RunConfig(dataset=sys.argv[1], model=model, options=options, epochs=1, k=5,
                               alpha=0.1, device="cpu", seed=seed)
            run(config, results=sys.argv[2], progress=False)

def held():
    gc.collect()
    tensors = sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())
    pages = int(open("/proc/self/statm").read().split()[1])
    return len(os.listdir("/proc/self/fd")), tensors, pages * os.sysconf("SC_PAGE_SIZE")

runs(range(15))
before = held()
runs(range(15, 65))
print(*before, *held())
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
def test_a_hundred_runs_hold_no_more_than_the_first(tiny_folder, tmp_path):
    """Files and tensors to the last one. The memory of the process may grow by 4 MiB, which is what
    fragments make of it: a run that kept its tables of 54 x 64 weights, two moments of Adam and
    the gradient would add 55 kB, and a hundred of them 5.4 MiB."""
    done = subprocess.run(
        [sys.executable, "-c", LEAKS, str(tiny_folder), str(tmp_path / "study")],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    files, tensors, size, files_after, tensors_after, size_after = map(int, done.stdout.split())
    print(
        f"\nfiles {files} -> {files_after}, tensors {tensors} -> {tensors_after}, "
        f"memory {size / 2**20:.1f} -> {size_after / 2**20:.1f} MiB"
    )
    assert (files_after, tensors_after) == (files, tensors)
    assert size_after - size < 4 * 2**20
