"""RecBole's models on inforec's rows, as records of the study recbole.

    python -m benchmarks.peers.records

On ml-100k (RANKING) each method is first run with one seed at every setting of its small grid, the
first of which is RecBole's default; validation ndcg@20 chooses one, and that one and the default
are run with every seed. On the labelled rows of ml-1m-ctr (CLICKS) each is run at RecBole's
defaults; DIN, last, with inforec's histories and for three epochs. Everything not named is
RecBole's default: Adam, batches of 2048, an evaluation each epoch, an end after 10 without a better
one. Records that exist are not made again.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache
from itertools import product
from pathlib import Path

import torch

from benchmarks import peers
from inforec import data
from inforec import results as store
from inforec.evaluate import click_metrics, evaluate_lists
from inforec.results import Record

STUDY = "recbole"
SEEDS = 3
RATES = {"learning_rate": (0.001, 0.003, 0.01)}
ROWS = {"learning_rate": (0.001, 0.01), "train_batch_size": (2048, 256)}  # a batch: so many users
RANKING = {
    "CDAE": ROWS,
    "NGCF": RATES,
    "EASE": {"reg_weight": (250.0, 125.0, 500.0)},
    "MultiVAE": ROWS,
    "BPR": RATES,
    "LightGCN": RATES,
    "SGL": RATES,
}
CLICKS = ("LR", "FM", "NFM", "WideDeep", "DeepFM", "FFM")
DIN = {"epochs": 3}  # a quarter of an hour each: not enough to say how good it becomes
HISTORY = 20


@dataclass(frozen=True)
class RecBoleConfig:
    """One run of RecBole.

    Args:
        model: its name in RecBole.
        options: RecBole's settings, by its names.
        dataset, split, split_seed: the rows; "ml-1m-ctr" are labelled ones.
        seed: of RecBole.
        k: list length, or None for labelled rows.
        history: how many liked items a labelled row carries.
    """

    model: str
    options: dict = field(default_factory=dict)
    dataset: str = "ml-100k"
    split: str = "random"
    split_seed: int = 2026
    seed: int = 0
    k: int | None = 20
    history: int = 0

    def to_dict(self) -> dict:
        """What a record stores and hashes."""
        shared = {name: getattr(self, name) for name in ("dataset", "split", "split_seed", "seed")}
        shared |= {name: getattr(self, name) for name in ("k", "history") if getattr(self, name)}
        return {"model": f"recbole-{self.model.lower()}", **shared, "options": self.options}


@cache
def rows_of(
    dataset: str, split: str, seed: int, k: int | None, history: int
) -> data.Dataset | data.Clicks:
    """The rows, read once."""
    if k:
        return data.load(dataset, split=split, seed=seed)
    return data.load_impressions(dataset, split=split, seed=seed, history=history)


def run_recbole(config: RecBoleConfig, *, results: Path | str) -> Record:
    """Train, measure with inforec's functions, and record; an equal run is found, not repeated."""
    settings = config.to_dict()
    if found := store.find(settings, results):
        return found
    rows = rows_of(config.dataset, config.split, config.split_seed, config.k, config.history)
    answer, arrays = peers.recbole(
        config.model, rows, config.options, seed=config.seed, k=config.k or 0
    )
    metrics = {}
    for on in ("valid", "test"):
        if config.k:
            metrics[on] = evaluate_lists(arrays[f"{on}_top_UK"], rows, (config.k,), on)
        else:
            logit_E = torch.from_numpy(arrays[f"{on}_logit_E"])
            metrics[on] = click_metrics(logit_E, getattr(rows, on))
    history = answer["history"]
    provenance = store.provenance(
        device=torch.device("cpu"), data=rows.fingerprint, seed=config.seed
    )
    provenance["recbole"] = {name: answer[name] for name in ("versions", "settings")}
    record = Record(
        config=settings,
        run_id=store.run_id(settings),
        study=Path(results).name,
        **metrics,
        history=history,
        cost={
            "seconds": answer["seconds"],
            "seconds_per_epoch": sum(entry["seconds"] for entry in history) / len(history),
            "seconds_evaluation": answer["seconds_evaluation"],
            "peak_memory_mib": answer["peak_memory_mib"],
            "parameters": answer["parameters"],
            "epochs": len(history),
        },
        provenance=provenance,
    )
    store.write(record, results)
    return record


def grid(model: str) -> list[RecBoleConfig]:
    """The settings that are tried, RecBole's default first."""
    names, values = zip(*RANKING[model].items(), strict=True)
    return [RecBoleConfig(model, dict(zip(names, v, strict=True))) for v in product(*values)]


def main() -> None:
    torch.set_num_threads(1)
    folder = store.root() / STUDY

    def run(config: RecBoleConfig) -> Record:
        record = run_recbole(config, results=folder)
        metric = "ndcg@20" if config.k else "auc"
        print(
            f"{config.model} {config.options} seed {config.seed}: {metric} "
            f"{record.valid[metric]:.4f} on validation, {record.test[metric]:.4f} on test, "
            f"{record.cost['epochs']} epochs, {record.cost['seconds']:.0f} s",
            flush=True,
        )
        return record

    def tuned(model: str) -> None:
        tried = grid(model)
        best = max(tried, key=lambda config: run(config).valid["ndcg@20"])
        chosen = [tried[0]] if best == tried[0] else [tried[0], best]
        for config in chosen:
            for seed in range(SEEDS if model != "EASE" else 1):
                run(replace(config, seed=seed))

    run(grid("CDAE")[0])
    run(grid("NGCF")[0])
    for model in CLICKS:
        run(RecBoleConfig(model, dataset="ml-1m-ctr", k=None))
    for model in RANKING:
        tuned(model)
    run(RecBoleConfig("DIN", DIN, dataset="ml-1m-ctr", k=None, history=HISTORY))


if __name__ == "__main__":
    main()
