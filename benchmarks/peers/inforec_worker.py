"""One timed run of inforec, in a process of its own: settings in as JSON, seconds out.

The counterpart of recbole_worker.py: the peak memory of the process is that of this run alone.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time

import torch

from benchmarks import peers
from benchmarks.peers.peak import peak_memory_mib
from inforec import data, losses
from inforec.batches import ImpressionBatches
from inforec.evaluate import evaluate, evaluate_clicks
from inforec.experiment import RunConfig, run, trained
from inforec.models import REGISTRY
from inforec.train import Objective, fit


def main() -> None:
    given = json.load(sys.stdin)
    torch.set_num_threads(given["threads"])
    config = RunConfig(**given["config"], device="cpu")
    measure = clicks if config.clicks else ranking
    answer = measure(config, given["rows"])
    answer["peak_memory_mib"] = peak_memory_mib()
    print(json.dumps(answer))


class Clock:
    """Marks the end of each epoch, validation included, and what it validated."""

    def __init__(self):
        self.ends, self.values = [], []

    def __call__(self, entry: dict) -> None:
        self.ends.append(time.perf_counter())
        self.values.append(entry.get("valid", {}).get("ndcg@20"))

    def epochs(self) -> list[float]:
        """Seconds of each epoch but the first, whose start is not known, and the last."""
        return [b - a for a, b in zip(self.ends, self.ends[1:-1], strict=False)]


def ranking(config: RunConfig, rows: None) -> dict:
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        record = run(config, results=folder, callbacks=[clock], progress=False)
        model, dataset = trained(config, folder)
    passes = []
    for _ in range(3):
        begun = time.perf_counter()
        evaluate(model, dataset, (config.k,), "valid")
        passes.append(time.perf_counter() - begun)
    seconds = record.cost["seconds"]
    return {
        "epochs": clock.epochs(),
        "seconds": seconds,
        "seconds_evaluation": statistics.median(passes),
        "validated": [
            [seconds - (clock.ends[-1] - end), value]
            for end, value in zip(clock.ends, clock.values, strict=True)
            if value is not None
        ],
    }


def clicks(config: RunConfig, rows: int) -> dict:
    history = getattr(config.model_config(), "history", 0)
    found = data.load_impressions(
        config.dataset, split=config.split, seed=config.split_seed, history=history
    )
    found = peers.some(found, rows)
    model = REGISTRY[config.model](found.train, config.model_config())
    clock = Clock()
    fit(
        model,
        ImpressionBatches(found.train, config.batch_size, config.seed),
        Objective(
            "logistic", lambda out, batch: losses.binary_cross_entropy(out.logits, batch.target)
        ),
        config.fit_config(progress=False),
        callbacks=[clock],
    )
    begun = time.perf_counter()
    evaluate_clicks(model, found.valid)
    return {"epochs": clock.epochs(), "seconds_evaluation": time.perf_counter() - begun}


if __name__ == "__main__":
    main()
