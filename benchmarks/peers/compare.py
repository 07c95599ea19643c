"""inforec beside RecBole, implicit and LensKit: equal rows, threads, batch and embedding size.

    python -m benchmarks.peers.compare [--full]

The short form takes ml-100k and the click-through models; --full takes ml-1m and gowalla, and
SGL, LightGCN to the end of RecBole's training. Each pair of runs is one record of the study
bench-peers; measured again, it is overwritten. What is measured:

- seconds of an epoch: the median of all but the first, of ROUNDS runs of each library in turn,
  because a machine's speed drifts (validation not counted); both with the BPR loss and one
  negative, or the logistic loss of whole rows for auto-encoders; of EASE, seconds of the solution;
- seconds of an evaluation: validation users, all items ranked, metrics included; RecBole's own
  five metrics, and not its default of 4096 scores at a time, which is many times slower, but as
  many as inforec takes;
- seconds to RecBole's best validation ndcg@20, with an evaluation each epoch. RecBole's are of
  training alone, at the settings PATIENT, because at its defaults its first plateau ends it;
  inforec's, at the settings QUICK, include its validations;
- rows a second of training click-through models, on ROWS rows;
- peak memory of the process, data and libraries included.

`implicit` is compared on matrix factorisation with the BPR loss alone; it steps pair by pair.
LensKit has that, LightGCN and EASE. Not compared: SELFRec, which is in no package registry.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from benchmarks import peers
from benchmarks.run import measured
from inforec import data
from inforec.results import Record, Table

STUDY = "bench-peers"
THREADS = 2
BATCH, DIM, LAYERS = 2048, 64, 3
SPLITS = {"ml-100k": "random", "ml-1m": "random", "gowalla": "given"}
ROWS = 2**16
ROUNDS = 3  # one with --full: the runs are long
LARGEST_EASE = 20_000  # items whose Gram matrix fits in memory twice
HIDDEN, DEEP, FIELD_DIM, HISTORY = 64, 2, 10, 20


@dataclass(frozen=True)
class Pair:
    """One model in both libraries: name, fields of RunConfig; RecBole's name and settings."""

    model: str
    config: dict
    peer: str
    options: dict = field(default_factory=dict)


GRAPH = {"options": {"dim": DIM, "layers": LAYERS}, "loss": "bpr"}
RANKING = (
    Pair("mf", {"options": {"dim": DIM}, "loss": "bpr"}, "BPR"),
    Pair("lightgcn", GRAPH, "LightGCN", {"n_layers": LAYERS}),
    Pair("sgl", GRAPH, "SGL", {"n_layers": LAYERS}),
    Pair("ngcf", GRAPH, "NGCF"),
    Pair("cdae", {"options": {"hidden": DIM}, "loss": "logistic", "temperature": 1.0}, "CDAE"),
    Pair("multvae", {"options": {"hidden": 600, "dim": 128}, "temperature": 1.0}, "MultiVAE"),
    Pair("ease", {"options": {"l2": 250.0}}, "EASE"),
)
FIGURES = ("seconds_per_epoch", "seconds_evaluation", "peak_memory_mib")
LENSKIT = {  # its name and settings there
    "mf": ("FlexMF", {"preset": "bpr"}),
    "lightgcn": ("FlexMF", {"preset": "lightgcn", "convolution_layers": LAYERS}),
    "ease": ("EASE", {"regularization": 250.0}),
}
MLP = {"hidden": HIDDEN, "layers": DEEP, "dropout": 0.0}
PEER_MLP = {"mlp_hidden_size": [HIDDEN] * DEEP, "dropout_prob": 0.0}
CLICKS = (
    Pair("lr", {}, "LR"),
    Pair("fm", {"dim": FIELD_DIM}, "FM"),
    Pair("ffm", {"dim": FIELD_DIM}, "FFM"),
    Pair("nfm", {"dim": FIELD_DIM, **MLP}, "NFM", PEER_MLP),
    Pair("widedeep", {"dim": FIELD_DIM, **MLP, "most_pairs": 0}, "WideDeep", PEER_MLP),
    Pair("deepfm", {"dim": FIELD_DIM, **MLP}, "DeepFM", PEER_MLP),
    Pair(
        "din",
        {"dim": FIELD_DIM, **MLP, "attention": HIDDEN, "history": HISTORY},
        "DIN",
        PEER_MLP,
    ),
)
# RecBole's defaults end on the first plateau of a graph model.
PATIENT = {"learning_rate": 0.005, "stopping_step": 40}
# inforec's own way to a good model: one softmax over the catalogue, few and large steps. The
# settings are those of the study of ml-100k, chosen there on validation.
SOFT = {"loss": "softmax", "batch_size": 65536, "epochs": 300, "patience": 1000}
QUICK = {
    "lightgcn": {**SOFT, "learning_rate": 0.085, "weight_decay": 1.3e-5, "temperature": 1.55},
    "sgl": {
        **SOFT,
        "learning_rate": 0.065,
        "weight_decay": 1.4e-5,
        "temperature": 1.6,
        "options": {"weight": 0.017, "temperature": 0.34, "ratio": 0.2},
    },
}


def worker(name: str, given: dict) -> dict:
    """What benchmarks/peers/NAME_worker.py prints.

    Raises:
        RuntimeError: with what it wrote, if it fails.
    """
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.peers.{name}_worker"],
        cwd=peers.ROOT,
        env=os.environ | {"OMP_NUM_THREADS": str(THREADS)},
        input=json.dumps({"threads": THREADS, **given}),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{name} failed:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def inforec(config: dict, rows: int | None = None) -> dict:
    """What inforec_worker.py measures."""
    return worker("inforec", {"config": config, "rows": rows})


def recbole(pair: Pair, rows: data.Dataset | data.Clicks, options: dict) -> dict:
    """What recbole_worker.py measures: seconds of each epoch but the first, or of a closed form."""
    options = {**options, **pair.options}
    answer, _ = peers.recbole(pair.peer, rows, options, seed=0, threads=THREADS)
    seconds = [entry["seconds"] for entry in answer["history"][1:]]
    answer["epochs"] = [answer["seconds_build"]] if pair.model == "ease" else seconds
    validation = [entry["seconds_validation"] for entry in answer["history"]]
    return answer | {"seconds_evaluation": statistics.median(validation)}


def in_turn(rounds: int, **runs: Callable[[], dict]) -> dict[str, dict]:
    """The last of the runs of each library, and as ``seconds_per_epoch`` the median of all."""
    answers = [{library: run() for library, run in runs.items()} for _ in range(rounds)]
    return {
        library: last
        | {"seconds_per_epoch": statistics.median(s for a in answers for s in a[library]["epochs"])}
        for library, last in answers[-1].items()
    }


def ranking(pair: Pair, name: str, dataset: data.Dataset, epochs: int, rounds: int) -> list[Record]:
    """Seconds of an epoch and of an evaluation, and memory, beside each peer with this model."""
    reconstructs = pair.model in ("cdae", "multvae")
    mean = len(dataset.train) / int((dataset.train.user_counts > 0).sum())
    options = {
        "embedding_size": DIM,
        "train_batch_size": round(BATCH / mean) if reconstructs else BATCH,
        "epochs": epochs,
        "metrics": ["Recall", "MRR", "NDCG", "Hit", "Precision"],
    }
    config = {"model": pair.model, "dataset": name, "split": dataset.split, "batch_size": BATCH}
    config |= {"epochs": epochs, "validate_every": epochs, "options": pair.config["options"]}

    def ours() -> dict:
        answer = inforec({**config, **pair.config})
        return answer | {"epochs": [answer["seconds"]]} if pair.model == "ease" else answer

    runs = {"recbole": lambda: recbole(pair, dataset, options)}
    if pair.model == "mf":
        given = {"dataset": name, "split": dataset.split, "dim": DIM, "epochs": epochs}
        runs["implicit"] = lambda: worker("implicit", given)
    if pair.model in LENSKIT:
        model, own = LENSKIT[pair.model]
        if model == "FlexMF":
            own = {**own, "embedding_size": DIM, "batch_size": BATCH, "epochs": epochs}
        runs["lenskit"] = lambda: peers.lenskit(model, dataset, own, threads=THREADS)
    records = []
    for library, run in runs.items():
        both = in_turn(rounds, **{"inforec": ours, library: run})
        records.append(_record(config, both, FIGURES, dataset.fingerprint))
    return records


def target(pair: Pair, name: str, dataset: data.Dataset) -> Record:
    """Seconds to RecBole's best validation ndcg@20; NaN if inforec does not reach it."""
    options = {"embedding_size": DIM, "train_batch_size": BATCH, **PATIENT, **pair.options}
    theirs, _ = peers.recbole(pair.peer, dataset, options, seed=0, threads=THREADS)
    trained, best, reached = 0.0, -math.inf, 0.0
    for entry in theirs["history"]:
        trained += entry["seconds"]
        if entry["valid"]["ndcg@20"] > best:
            best, reached = entry["valid"]["ndcg@20"], trained
    config = {"model": pair.model, "dataset": name, "split": dataset.split, **QUICK[pair.model]}
    config["options"] = {**pair.config["options"], **config.get("options", {})}
    config["validate_every"] = 1
    ours = inforec(config)
    quick = [seconds for seconds, value in ours["validated"] if value >= best]
    both = {
        "inforec": {
            "seconds_to_target": quick[0] if quick else math.nan,
            "target_ndcg": max(value for _, value in ours["validated"]),
        },
        "recbole": {"seconds_to_target": reached, "target_ndcg": best},
    }
    return _record(config, both, ("seconds_to_target", "target_ndcg"), dataset.fingerprint)


def clicks(pair: Pair, found: data.Clicks, epochs: int) -> Record:
    """Rows a second of training."""
    options = {"embedding_size": FIELD_DIM, "train_batch_size": BATCH, "epochs": epochs}
    config = {"model": pair.model, "dataset": found.name, "loss": "logistic", "epochs": epochs}
    config |= {"batch_size": BATCH, "options": pair.config, "weight_decay": 0.0}
    both = in_turn(
        ROUNDS,
        inforec=lambda: inforec(config, ROWS),
        recbole=lambda: recbole(pair, found, options),
    )
    for answer in both.values():
        answer["rows_per_second"] = len(found.train) / answer["seconds_per_epoch"]
    figures = ("rows_per_second", "peak_memory_mib")
    return _record({**config, "rows": ROWS}, both, figures, found.fingerprint)


def _record(config: dict, both: dict[str, dict], figures: Sequence[str], rows: str) -> Record:
    """One record of a pair, whose cost holds each figure of both libraries, such as
    inforec_seconds_per_epoch and recbole_seconds_per_epoch."""
    (peer,) = both.keys() - {"inforec"}
    config = {**config, "seed": 0, "peer": peer}
    cost = {f"{library}_{name}": both[library][name] for name in figures for library in both}
    record = measured(STUDY, config, cost, rows)
    print(Table(HEADER, shown(record)), flush=True)
    return record


HEADER = ["data", "model", "beside", "what", "inforec", "peer", "times better"]


def shown(record: Record) -> list[list]:
    """The rows of the table: how many times better inforec is, above 1 where it is."""
    config, rows = record.config, []
    for key, ours in record.cost.items():
        library, what = key.split("_", 1)
        if library == "inforec":
            theirs = record.cost[f"{config['peer']}_{what}"]
            better = ours / theirs if what in ("rows_per_second", "target_ndcg") else theirs / ours
            rows.append([config["dataset"], config["model"], config["peer"], what])
            rows[-1] += [f"{ours:.4g}", f"{theirs:.4g}", f"{better:.2f}"]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="ml-1m and gowalla instead")
    full = parser.parse_args().full
    torch.set_num_threads(THREADS)
    records = []
    for name in ("ml-1m", "gowalla") if full else ("ml-100k",):
        dataset = data.load(name, split=SPLITS[name])
        epochs, rounds = (3, 1) if full else (6, ROUNDS)
        for pair in RANKING:
            if pair.model != "ease" or dataset.num_items < LARGEST_EASE:
                records += ranking(pair, name, dataset, epochs, rounds)
        if name != "gowalla":
            records += [target(pair, name, dataset) for pair in RANKING if pair.model in QUICK]
    for pair in () if full else CLICKS:
        history = HISTORY if pair.model == "din" else 0
        found = peers.some(data.load_impressions("ml-1m-ctr", history=history), ROWS)
        records.append(clicks(pair, found, 3 if history else 8))
    print()
    print(Table(HEADER, [row for record in records for row in shown(record)]))


if __name__ == "__main__":
    main()
