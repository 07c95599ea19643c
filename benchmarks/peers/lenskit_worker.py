"""One run of LensKit, by the Python of .venv-lenskit: settings in as JSON, seconds out.

It imports nothing of inforec. ``benchmarks.peers`` writes the rows and starts it in their folder.
LensKit's own trainer, pipeline and metrics do everything; what is added is a clock.
"""

import json
import statistics
import sys
import time

import pandas as pd
import torch
from lenskit import batch
from lenskit.data import ItemListCollection, from_interactions_df
from lenskit.flexmf import FlexMFImplicitScorer
from lenskit.knn import EASEScorer
from lenskit.metrics import NDCG, Hit, Precision, Recall, RecipRank, RunAnalysis
from lenskit.pipeline import topn_pipeline
from lenskit.training import TrainingOptions
from peak import peak_memory_mib

METRICS = (Recall, RecipRank, NDCG, Hit, Precision)
SCORERS = {"FlexMF": FlexMFImplicitScorer, "EASE": EASEScorer}


def main() -> None:
    given = json.load(sys.stdin)
    torch.set_num_threads(given["threads"])
    train, valid = (
        pd.read_csv(f"rows.{on}.inter", sep="\t", names=["user_id", "item_id"], header=0)
        for on in ("train", "valid")
    )
    train = from_interactions_df(train)
    scorer = SCORERS[given["model"]](**given["options"])
    options = TrainingOptions(device="cpu", rng=0)
    if given["model"] == "EASE":
        seconds = [clocked(lambda: scorer.train(train, options))]
    else:
        trainer = scorer.create_trainer(train, options)
        seconds = [clocked(trainer.train_epoch) for _ in range(scorer.config.epochs)][1:]
        trainer.finalize()
    pipeline = topn_pipeline(scorer, n=given["k"])
    pipeline.train(train, TrainingOptions(retrain=False, device="cpu"))
    wanted = ItemListCollection.from_df(valid, ["user_id"])
    metrics = RunAnalysis(*(metric(n=given["k"]) for metric in METRICS))
    found = {}

    def evaluate() -> None:
        lists = batch.recommend(pipeline, list(wanted.keys()), n_jobs=1)
        found.update(metrics.measure(lists, wanted).list_metrics().mean())

    passes = [clocked(evaluate) for _ in range(3)]
    answer = {
        "epochs": seconds,
        "seconds_evaluation": statistics.median(passes),
        "peak_memory_mib": peak_memory_mib(),
        "valid": {name: float(value) for name, value in found.items()},
    }
    print(json.dumps(answer))


def clocked(function) -> float:
    """The seconds that a call takes."""
    begun = time.perf_counter()
    function()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
