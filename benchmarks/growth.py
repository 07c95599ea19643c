"""python -m benchmarks.growth: how cost grows with each size, on synthetic interactions.

One size is varied at a time, the others stay at BASE. Each sweep is one record of the study
bench-growth whose cost holds seconds by the size; measured again, it is overwritten.
"""

from __future__ import annotations

import os

import torch

from benchmarks.limits import objective, training
from benchmarks.run import measured, seconds
from benchmarks.synthetic import interactions
from inforec import results
from inforec.evaluate import best_items, score_blocks
from inforec.models import REGISTRY
from inforec.train import choose_device

STUDY = "bench-growth"
BASE = {"rows": 256, "items": 10_000, "dim": 64, "categories": 32}
GRAPH = {"users": 10_000, "items": 10_000, "interactions": 200_000, "dim": 64, "layers": 3}
OBJECTIVE = {
    "items": (1_000, 10_000, 100_000, 1_000_000, 10_000_000),
    "rows": (16, 64, 256, 1024, 4096),
    "dim": (16, 32, 64, 128, 256),
    "categories": (1, 8, 32, 128),
}
LIGHTGCN = {
    "users": (1_000, 10_000, 100_000, 1_000_000),
    "items": (1_000, 10_000, 100_000, 1_000_000),
    "interactions": (20_000, 200_000, 2_000_000),
    "dim": (16, 64, 256),
    "layers": (1, 2, 4, 8),
}
RANKING = {"users": (1_000, 4_000, 16_000), "items": (1_000, 10_000, 100_000)}
REPEATS = 3


def affordable(rows: int, items: int, dim: int, categories: int) -> bool:
    """Whether the items, their gradient and their categories fit in half of the memory."""
    held = 4 * items * (2 * dim + 2 * categories)
    return held < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2


def of_objective(**sizes) -> float:
    """Seconds of softmax, KL and entropy with their gradient."""
    return seconds(objective(**sizes, terms="both"), REPEATS if sizes["items"] < 10**6 else 1)


def of_lightgcn(users, items, interactions: int, dim, layers) -> float:
    """Seconds of one training step with the BPR loss."""
    train = draw(users, items, interactions)
    return training("lightgcn", "bpr", train, REPEATS, dim=dim, layers=layers)[0]


def of_ranking(users, items) -> float:
    """Seconds of the best 20 items of every user."""
    train = draw(users, items, 10 * users)
    model = REGISTRY["mf"](train).to(train.user.device)

    @torch.no_grad()
    def rank():
        for _, score_BN in score_blocks(model, train.history_UT, items):
            best_items(score_BN, 20)

    return seconds(rank, 1)


def draw(users: int, items: int, number: int):
    """Interactions on the device."""
    return interactions(users, items, number).to(choose_device("auto"))


def main() -> None:
    rows = []
    for path, function, base, sweeps in (
        ("objective", of_objective, BASE, OBJECTIVE),
        ("LightGCN step", of_lightgcn, GRAPH, LIGHTGCN),
        ("ranking", of_ranking, {"users": 4_000, "items": 10_000}, RANKING),
    ):
        for varies, values in sweeps.items():
            cost = {}
            for value in values:
                sizes = {**base, varies: value}
                if path != "objective" or affordable(**sizes):
                    cost[str(value)] = function(**sizes)
                    rows.append([path, varies, f"{value:,}", cost[str(value)]])
            fixed = {name: value for name, value in base.items() if name != varies}
            measured(STUDY, {"path": path, "varies": varies, **fixed}, cost)
    print(f"{torch.get_num_threads()} threads\n")
    print(results.Table(["path", "varies", "size", "seconds"], rows))


if __name__ == "__main__":
    main()
