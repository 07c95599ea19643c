"""The runs behind the chapter "How far alpha and beta go": MovieLens-100K, random split.

    python workflow/first_grid.py [--jobs 2]

Four stages, each reading the records of the one before:

tune      every method draws the same number of settings; validation ndcg@20 chooses
compare   the chosen settings with three seeds
grid      alpha x beta on LightGCN with the softmax loss, three seeds
rerank    the greedy reranker on the same model with alpha = beta = 0, three seeds

Runs whose records exist are not repeated, so the command may be stopped and started again.
"""

from __future__ import annotations

import argparse
import random
from dataclasses import replace
from itertools import chain

from als import AlsConfig
from runs import run_all

from inforec import results
from inforec.experiment import RunConfig

BUDGET = 16  # settings drawn for each method
SEEDS = (0, 1, 2)
ALPHAS = (0.0, 0.5, 1.0, 2.0, 4.0)
BETAS = (0.0, 0.4, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
TRADE_OFFS = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95)

PATIENT = {"epochs": [300], "patience": [8]}  # the same for every trained method
SOFTMAX = {
    **PATIENT,
    "temperature": [0.2, 0.35, 0.5, 0.75, 1.0],
    "learning_rate": [0.003, 0.005, 0.01],
    "weight_decay": [1e-6, 1e-5, 2e-5, 5e-5, 1e-4],
}
# What is searched for each method. A name with a dot is one of the model's own options.
SPACES = {
    "ItemKNN": {
        "model": ["itemknn"],
        "options.neighbours": [20, 50, 100, 200, 400],
        "options.shrinkage": [0.0, 5.0, 10.0, 20.0, 50.0, 100.0],
    },
    "EASE": {"model": ["ease"], "options.l2": [float(round(10 * 1.5**n)) for n in range(16)]},
    "implicit ALS": {
        "factors": [32, 64, 128],
        "regularization": [5.0, 10.0, 20.0, 50.0, 100.0],
        "alpha": [1.0, 2.0, 5.0, 10.0, 20.0],
    },
    "MF + softmax": {"model": ["mf"], **SOFTMAX},
    "LightGCN + BPR": {
        "model": ["lightgcn"],
        "loss": ["bpr"],
        **PATIENT,
        "learning_rate": [0.001, 0.003, 0.005, 0.01],
        "weight_decay": [1e-7, 1e-6, 3e-6, 1e-5, 3e-5],
        "options.layers": [1, 2, 3, 4],
    },
    "LightGCN + softmax": {"model": ["lightgcn"], **SOFTMAX, "options.layers": [1, 2, 3, 4]},
}


def searches() -> dict[str, list]:
    """For each method, BUDGET distinct settings drawn from its space with a fixed seed."""
    drawn = {}
    for method, space in SPACES.items():
        draw = random.Random(method)
        settings: list = []
        while len(settings) < BUDGET:
            chosen = {name: draw.choice(values) for name, values in space.items()}
            options = {
                name.removeprefix("options."): chosen.pop(name)
                for name in list(chosen)
                if name.startswith("options.")
            }
            kind = AlsConfig if method == "implicit ALS" else RunConfig
            config = kind(**chosen, **({"options": options} if options else {}))
            if config not in settings:
                settings.append(config)
        drawn[method] = settings
    return drawn


def chosen() -> dict[str, object]:
    """Each method's setting with the best validation ndcg@20, popularity among them untuned."""
    best: dict[str, object] = {"popularity": RunConfig(model="popularity")}
    for method, settings in searches().items():
        folder = results.root() / "first-grid-tune"

        def value(config, folder=folder):
            return results.find(config.to_dict(), folder).valid["ndcg@20"]

        best[method] = max(settings, key=value)
    return best


def comparison() -> dict[str, list]:
    """The chosen setting of every method with every seed; closed forms need one."""
    settings = {}
    for method, config in chosen().items():
        one = isinstance(config, RunConfig) and config.model in ("popularity", "itemknn", "ease")
        settings[method] = [replace(config, seed=seed) for seed in (SEEDS[:1] if one else SEEDS)]
    return settings


def grid() -> list[RunConfig]:
    """alpha x beta x seed on the chosen LightGCN with the softmax loss."""
    base = chosen()["LightGCN + softmax"]
    return [
        replace(base, alpha=alpha, beta=beta, seed=seed)
        for seed in SEEDS
        for alpha in ALPHAS
        for beta in BETAS
    ]


def reranked() -> list[RunConfig]:
    """Steck's lambda x seed on the same model without alpha and beta."""
    base = chosen()["LightGCN + softmax"]
    return [
        replace(base, reranker="steck", trade_off=trade_off, seed=seed)
        for seed in SEEDS
        for trade_off in TRADE_OFFS
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2, help="processes, one thread each")
    jobs = parser.parse_args().jobs
    run_all("tune", list(chain(*searches().values())), "first-grid-tune", jobs)
    run_all("compare", list(chain(*comparison().values())), "first-grid", jobs)
    run_all("grid", grid(), "first-grid", jobs)
    run_all("rerank", reranked(), "first-grid", jobs)


if __name__ == "__main__":
    main()
