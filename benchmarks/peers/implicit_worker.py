"""One timed run of matrix factorisation with the BPR loss in `implicit`, in a process of its own.

It takes one (user, item) pair a step, without batches, in compiled code on all threads.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from itertools import pairwise

import numpy as np
import scipy.sparse
from implicit.cpu.bpr import BayesianPersonalizedRanking
from implicit.evaluation import ranking_metrics_at_k

from benchmarks.peers.peak import peak_memory_mib
from inforec import data
from inforec.types import Interactions


def main() -> None:
    given = json.load(sys.stdin)
    dataset = data.load(given["dataset"], split=given["split"])
    train_UN, valid_UN = matrix(dataset.train), matrix(dataset.valid)
    model = BayesianPersonalizedRanking(
        factors=given["dim"],
        iterations=given["epochs"],
        num_threads=given["threads"],
        random_state=0,
    )
    ends = [time.perf_counter()]
    model.fit(train_UN, show_progress=False, callback=lambda *_: ends.append(time.perf_counter()))
    passes = []
    for _ in range(3):
        begun = time.perf_counter()
        ranking_metrics_at_k(
            model, train_UN, valid_UN, K=20, show_progress=False, num_threads=given["threads"]
        )
        passes.append(time.perf_counter() - begun)
    answer = {
        "epochs": [b - a for a, b in pairwise(ends[1:])],
        "seconds_evaluation": statistics.median(passes),
        "peak_memory_mib": peak_memory_mib(),
    }
    print(json.dumps(answer))


def matrix(interactions: Interactions) -> scipy.sparse.csr_matrix:
    """(U, N) matrix with 1 for each interaction."""
    user, item = interactions.user.numpy(), interactions.item.numpy()
    shape = (interactions.num_users, interactions.num_items)
    return scipy.sparse.csr_matrix((np.ones(len(user), np.float32), (user, item)), shape=shape)


if __name__ == "__main__":
    main()
