"""Implicit ALS, as the library `implicit` has it, under inforec's protocol and in its records.

Hu, Koren and Volinsky (2008), "Collaborative filtering for implicit feedback datasets".

Shape letters: U users, N items, K list length.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path

import implicit
import numpy as np
import scipy.sparse
import torch
from threadpoolctl import threadpool_limits

from inforec import data
from inforec import results as store
from inforec.evaluate import evaluate_lists
from inforec.results import Record
from inforec.types import Interactions


@dataclass(frozen=True)
class AlsConfig:
    """The factoriser's own parameters, by its names, and the data they are fitted to."""

    factors: int = 64
    regularization: float = 10.0
    alpha: float = 10.0
    iterations: int = 20
    seed: int = 0
    dataset: str = "ml-100k"
    split: str = "random"
    split_seed: int = 2026
    k: int = 20

    def to_dict(self) -> dict:
        """What a record stores and hashes."""
        options = asdict(self)
        shared = {
            name: options.pop(name) for name in ("seed", "dataset", "split", "split_seed", "k")
        }
        return {"model": "implicit-als", **shared, "options": options}


def run_als(config: AlsConfig, *, results: Path | str) -> Record:
    """Fit, list and record; an equal run is found, not repeated."""
    settings = config.to_dict()
    if found := store.find(settings, results):
        return found
    dataset = data.load(config.dataset, split=config.split, seed=config.split_seed)
    model = implicit.als.AlternatingLeastSquares(
        factors=config.factors,
        regularization=config.regularization,
        alpha=config.alpha,
        iterations=config.iterations,
        random_state=config.seed,
        num_threads=1,
    )
    train_UN, valid_UN = _matrix(dataset.train), _matrix(dataset.valid)
    start = time.perf_counter()
    with threadpool_limits(1, "blas"):  # as the library advises: its own threads do the work
        model.fit(train_UN, show_progress=False)
    trained = time.perf_counter()
    users = np.arange(dataset.num_users)
    metrics, lists = {}, {}
    for on, taken_UN in (("valid", train_UN), ("test", train_UN + valid_UN)):
        top_UK, _ = model.recommend(users, taken_UN, N=config.k, filter_already_liked_items=True)
        lists[on] = top_UK.astype(np.int64)
        metrics[on] = evaluate_lists(lists[on], dataset, (config.k,), on)
    seconds = trained - start
    provenance = store.provenance(
        device=torch.device("cpu"), data=dataset.fingerprint, seed=config.seed
    )
    provenance["versions"]["implicit"] = implicit.__version__
    record = Record(
        config=settings,
        run_id=store.run_id(settings),
        study=Path(results).name,
        valid=metrics["valid"],
        test=metrics["test"],
        history=[],
        cost={
            "seconds": seconds,
            "seconds_per_epoch": seconds / config.iterations,
            "seconds_evaluation": time.perf_counter() - trained,
            "parameters": (dataset.num_users + dataset.num_items) * config.factors,
            "epochs": config.iterations,
        },
        provenance=provenance,
        arrays={"top_UK": lists["test"]},
    )
    store.write(record, results)
    return record


def _matrix(interactions: Interactions) -> scipy.sparse.csr_matrix:
    """(U, N) matrix with 1 for each interaction."""
    return scipy.sparse.csr_matrix(
        (
            np.ones(len(interactions), dtype=np.float32),
            (interactions.user.numpy(), interactions.item.numpy()),
        ),
        shape=(interactions.num_users, interactions.num_items),
    )
