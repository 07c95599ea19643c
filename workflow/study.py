"""The study: every method with one budget, on one data set, and what each reranker makes of it.

    python workflow/study.py ml-100k [--jobs 2]

Three stages, each reading the records of the one before:

tune      validation ndcg@20 chooses among BUDGET settings a method (study NAME-tune)
compare   the chosen settings with each seed (study NAME)
decide    the rerankers on the chosen models, with each seed (study NAME)

A plain method has its whole budget for its own hyper-parameters. With the terms (alpha, beta) or
with the layer, the first two thirds are the same trials without them, and the last third searches
their weights around the best of those: each row of a table has seen the same number of settings.
Runs whose records exist are not repeated, so the command may be stopped and started again.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import torch
from runs import Method, best, in_parallel, run_all, search

from inforec import data, results
from inforec.evaluate import evaluate_lists, recommend
from inforec.experiment import RunConfig, trained
from inforec.models import REGISTRY

SOFTMAX = {
    "learning_rate": (0.005, 0.1),
    "weight_decay": (1e-5, 5e-4),
    "temperature": (0.3, 2.0),
}
LAYERS = {"options.layers": [1, 2, 3, 4]}
GRAPH = {**SOFTMAX, **LAYERS}
CONTRAST = {"options.weight": (0.003, 0.3), "options.temperature": (0.1, 0.5)}
NOISE = {**CONTRAST, "options.eps": (0.03, 0.3)}
DENOISING = {
    "learning_rate": (0.005, 0.05),
    "weight_decay": (1e-6, 1e-4),
    "options.corruption": [0.3, 0.5, 0.7],
}

METHODS = {
    "popularity": Method({"model": "popularity"}),
    "ItemKNN": Method(
        {"model": "itemknn"},
        {"options.neighbours": [20, 50, 100, 200, 400], "options.shrinkage": (1.0, 200.0)},
    ),
    "EASE": Method({"model": "ease"}, {"options.l2": (20.0, 4000.0)}),
    "MF": Method({"model": "mf"}, SOFTMAX),
    "LightGCN + BPR": Method(
        {"model": "lightgcn", "loss": "bpr", "batch_size": 8192},
        {
            "learning_rate": (0.002, 0.03),
            "weight_decay": (1e-7, 1e-4),
            **LAYERS,
        },
    ),
    "LightGCN": Method({"model": "lightgcn"}, GRAPH),
    "NGCF": Method(
        {"model": "ngcf"},
        {
            **GRAPH,
            "learning_rate": (0.002, 0.03),
            "options.message_dropout": [0.0, 0.1, 0.3],
        },
    ),
    "SGL": Method(
        {"model": "sgl"},
        {
            **GRAPH,
            **CONTRAST,
            "options.ratio": (0.05, 0.4),
            "options.augmentation": ["edge_drop", "node_drop", "random_walk"],
        },
    ),
    "SimGCL": Method({"model": "simgcl"}, {**GRAPH, **NOISE}),
    "XSimGCL": Method({"model": "xsimgcl"}, {**GRAPH, **NOISE}),
    "DirectAU": Method(
        {"model": "directau", "loss": "own"},
        {
            "learning_rate": (0.005, 0.1),
            "weight_decay": (1e-7, 1e-4),
            "options.gamma": (0.2, 5.0),
            **LAYERS,
        },
    ),
    "CGI": Method({"model": "cgi", "epochs": 150}, {**GRAPH, "options.weight": (0.003, 0.3)}),
    "DAE": Method({"model": "dae", "temperature": 1.0}, DENOISING),
    "DAE + logistic": Method({"model": "dae", "loss": "logistic", "temperature": 1.0}, DENOISING),
    # The temperature does not enter this loss; at this one the law costs validation items least.
    "DAE + square": Method({"model": "dae", "loss": "mse", "temperature": 0.15}, DENOISING),
    "CDAE": Method({"model": "cdae", "loss": "logistic", "temperature": 1.0}, DENOISING),
    "Mult-VAE": Method(
        {"model": "multvae", "temperature": 1.0},
        {
            "learning_rate": (0.0005, 0.01),
            "weight_decay": (1e-7, 1e-4),
            "options.weight": (0.05, 1.0),
            "options.dropout": [0.3, 0.5, 0.7],
        },
    ),
}
AUTOENCODERS = ("DAE", "DAE + logistic", "DAE + square", "CDAE", "Mult-VAE")
# Of the records committed:
TABLED = tuple(method for method in METHODS if method not in (*AUTOENCODERS, "NGCF"))
TERMS = {"alpha": (0.1, 2.0), "beta": (0.3, 16.0)}
LAYER = {"layer_alpha": (0.1, 4.0)}
TERMED = ("MF", "LightGCN", "SGL", "SimGCL", "XSimGCL", "DirectAU", "CGI")

TRADE_OFFS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99)
PLACES = (0.02, 0.04, 0.06, 0.08, 0.1, 0.13, 0.18, 0.3)  # trade-offs where scores count by place
TILTS = (0.25, 0.5, 1.0, 2.0, 4.0)
PERPLEXITY = 60.0


@dataclass(frozen=True)
class Study:
    """What is run on one data set.

    Args:
        fixed: fields of RunConfig that every run shares.
        budget: settings tried for each method, a multiple of three.
        seeds: of the chosen settings.
        methods: names in METHODS.
        termed: the methods that are also trained with the terms.
        layered: the methods that are also trained with the layer.
        ranges: for a method, ranges in place of those in METHODS.
        own: fields of RunConfig that a method has for itself.
        fronts: the rows whose lists are reranked with every setting; the others get one of each.
    """

    fixed: Mapping[str, object]
    budget: int
    seeds: int
    methods: tuple[str, ...] = TABLED
    termed: tuple[str, ...] = TERMED
    layered: tuple[str, ...] = ()
    ranges: Mapping[str, Mapping[str, tuple[float, float]]] = field(default_factory=dict)
    own: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    fronts: tuple[str, ...] = ("EASE", "LightGCN", "LightGCN + terms")


SMALL = ("popularity", "ItemKNN", "EASE", "MF", "LightGCN", "XSimGCL")
# One step an epoch: as good as many small ones here, and far cheaper on a graph.
WHOLE = {"epochs": 400, "batch_size": 65536, "validate_every": 10}
# A step's gradient for one user falls with the number of users; weight decay does not.
LARGE = {"weight_decay": (1e-6, 5e-5), "temperature": (0.15, 1.0)}
STUDIES = {
    "ml-100k": Study({"dataset": "ml-100k", **WHOLE}, 9, 5, layered=("LightGCN",)),
    # In the split of the papers on softmax losses, to be set beside their tables.
    "irb-ml-100k": Study(
        {"dataset": "irb-ml-100k", "split": "given", **WHOLE}, 9, 5, SMALL, fronts=("LightGCN",)
    ),
    "irb-health": Study(
        {"dataset": "irb-health", "split": "given", **WHOLE}, 9, 5, SMALL, fronts=("LightGCN",)
    ),
    "irb-electronic": Study(
        {"dataset": "irb-electronic", "split": "given", "epochs": 40, "batch_size": 8192},
        budget=3,
        seeds=5,
        methods=SMALL,
        termed=("LightGCN",),
        ranges=dict.fromkeys(("LightGCN", "XSimGCL"), LARGE),
        own={"XSimGCL": {"epochs": 25}},  # each costs several of LightGCN's
        fronts=(),
    ),
    "irb-ml-1m": Study(
        {"dataset": "irb-ml-1m", "split": "given", "epochs": 60, "batch_size": 131072},
        budget=6,
        seeds=5,
        methods=SMALL,
        termed=("LightGCN",),
        ranges=dict.fromkeys(("MF", "LightGCN", "XSimGCL"), LARGE),
        fronts=("EASE",),
    ),
}


def tune(name: str, study: Study, method: str) -> dict[str, RunConfig]:
    """The chosen setting of a method and of its variants with the terms and with the layer."""
    folder = f"{name}-tune"
    tried = search(searched(study, method), folder, study.budget)
    chosen = {method: best(tried, folder)}
    shared = tried[: 2 * study.budget // 3]
    for suffix, space, methods in (("terms", TERMS, study.termed), ("layer", LAYER, study.layered)):
        if method in methods:
            base = best(shared, folder)
            further = search(_around(base, space), folder, study.budget - len(shared))
            chosen[f"{method} + {suffix}"] = best(further, folder)
    return chosen


def searched(study: Study, method: str) -> Method:
    """The method with what this study fixes, and with its ranges."""
    fixed = {**study.fixed, **METHODS[method].fixed, **study.own.get(method, {})}
    return Method(fixed, {**METHODS[method].space, **study.ranges.get(method, {})})


def _around(base: RunConfig, space: Mapping) -> Method:
    """The search over ``space`` with everything else as in ``base``."""
    settings = base.to_dict()
    options = {f"options.{name}": value for name, value in settings.pop("options").items()}
    return Method({**settings, **options}, space)


def seeded(config: RunConfig, seeds: int) -> list[RunConfig]:
    """The setting with every seed; what has nothing to draw needs one."""
    one = REGISTRY[config.model].closed_form
    return [replace(config, seed=seed) for seed in range(1 if one else seeds)]


def carry_over(name: str, configs: Iterable[RunConfig]) -> None:
    """Copy what the search left of these settings: it has trained them with their first seed."""
    folder = results.root() / name
    folder.mkdir(parents=True, exist_ok=True)
    for config in configs:
        run_id = results.run_id(config.to_dict())
        for path in (results.root() / f"{name}-tune").glob(f"{run_id}.*"):
            if not (folder / path.name).exists():
                shutil.copy(path, folder)


def decisions(full: bool) -> list[dict]:
    """The settings of the rerankers: all of them, or one of each."""
    shared = {"rerank_perplexity": PERPLEXITY, "candidates": 100}
    kinds = [
        *({"reranker": "steck", "trade_off": t} for t in TRADE_OFFS),
        *({"reranker": "decaying_attention", "trade_off": t} for t in (0.8, 0.95, 0.99)),
        *({"reranker": "tilt", "tilt_alpha": a} for a in TILTS),
        *(
            {"reranker": "tilt_steck", "tilt_alpha": a, "trade_off": t}
            for a in TILTS[:3]
            for t in (0.8, 0.9, 0.95, 0.97)
        ),
        *({"reranker": "expected_ndcg", "trade_off": t} for t in PLACES),
        *(
            {"reranker": "expected_ndcg", "tilt_alpha": a, "trade_off": t}
            for a in TILTS[:3]
            for t in PLACES[:6]
        ),
    ]
    one_of_each = (
        {"reranker": "steck", "trade_off": 0.9},
        {"reranker": "decaying_attention", "trade_off": 0.95},
        {"reranker": "tilt", "tilt_alpha": 0.5},
        {"reranker": "tilt_steck", "tilt_alpha": 0.5, "trade_off": 0.9},
        {"reranker": "expected_ndcg", "tilt_alpha": 0.25, "trade_off": 0.08},
    )
    return [{**shared, **kind} for kind in kinds if full or kind in one_of_each]


def as_published(name: str, chosen: Mapping[str, RunConfig], seeds: int) -> None:
    """Write what the chosen models reach where only training items are left out of test lists.

    Papers on the splits that come with their data keep validation items in; these numbers are to be
    set beside theirs. ``results/NAME/training-left-out.metrics`` is JSON: by row, for each metric
    one number a seed; rows that are not among ``chosen`` are kept. It needs the weights beside the
    records, so it is written where the runs were made.
    """
    folder = results.root() / name
    path = folder / "training-left-out.metrics"
    found = json.loads(path.read_text()) if path.exists() else {}
    for row, config in chosen.items():
        metrics = []
        for one in seeded(config, seeds):
            model, dataset = trained(one, folder)
            lists_UK = recommend(model, dataset, one.k, "valid")
            metrics.append(evaluate_lists(lists_UK, dataset, (one.k,), "test"))
        found[row] = {m: [one[m] for one in metrics] for m in ("recall@20", "ndcg@20")}
    path.write_text(json.dumps(found, indent=1) + "\n")


def explorer(name: str, base: RunConfig) -> None:
    """Write what two users are shown under each decision, for the sliders of the book's page.

    ``results/NAME/explorer.lists`` is JSON: ``categories``, their names; ``titles``, by item number
    (title, category numbers); ``users``, by original id ``interest``, P_u, and ``lists``, by
    "reranker tilt_alpha trade_off" the item numbers, best first. It needs the arrays beside the
    records, which are not committed, so it is written where the runs were made. The users have at
    least 20 training items and a narrow and a middling P_u.

    Args:
        name: of the study.
        base: the chosen setting whose lists are reranked, with its first seed.
    """
    dataset = data.load(
        base.dataset,
        split=base.split,
        min_rating=base.min_rating,
        min_interactions=base.min_interactions,
        seed=base.split_seed,
    )
    if dataset.item_titles is None or dataset.category_NC is None:
        return
    folder = results.root() / name
    entropy_U = torch.special.entr(dataset.interest_UC.double()).sum(1)
    active_U = (dataset.train.user_counts >= 20).nonzero()[:, 0]
    ranked_U = active_U[entropy_U[active_U].argsort(stable=True)]
    users = [int(ranked_U[len(ranked_U) // part]) for part in (10, 2)]
    lists = {user: {} for user in users}
    for decision in ({}, *decisions(full=True)):
        config = replace(base, **decision)
        record = results.find(config.to_dict(), folder)
        if record is None or record.arrays is None:
            print(f"explorer: the lists of {decision or 'the plain model'} are not in {folder}")
            return
        key = f"{config.reranker} {config.tilt_alpha:g} {config.trade_off:g}"
        for user in users:
            lists[user][key] = [int(item) for item in record.top[user] if item >= 0]
    items = {i for of_user in lists.values() for shown in of_user.values() for i in shown}
    body = {
        "categories": list(dataset.category_names),
        "titles": {
            str(i): [dataset.item_titles[i], dataset.category_NC[i].nonzero()[:, 0].tolist()]
            for i in sorted(items)
        },
        "users": {
            str(dataset.user_ids[user]): {
                "interest": [round(share, 4) for share in dataset.interest_UC[user].tolist()],
                "lists": lists[user],
            }
            for user in users
        },
    }
    (folder / "explorer.lists").write_text(json.dumps(body) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=STUDIES)
    parser.add_argument("--jobs", type=int, default=2, help="processes, one thread each")
    parser.add_argument("--methods", nargs="+", choices=METHODS, help="only these")
    given = parser.parse_args()
    name, study = given.name, STUDIES[given.name]
    methods = [m for m in study.methods if m in (given.methods or study.methods)]
    answers = in_parallel("tune", tune, [(name, study, m) for m in methods], given.jobs)
    chosen = {row: config for answer in answers for row, config in answer.items()}
    carry_over(name, chosen.values())
    runs = [c for config in chosen.values() for c in seeded(config, study.seeds)]
    run_all("compare", runs, name, given.jobs, per_user=True)
    if study.fixed.get("split") == "given":
        as_published(name, chosen, study.seeds)
    runs = [
        replace(c, **decision)
        for row, config in chosen.items()
        for c in seeded(config, study.seeds)
        for decision in decisions(row in study.fronts)
    ]
    run_all("decide", runs, name, given.jobs, per_user=True)
    if "LightGCN" in chosen:
        explorer(name, chosen["LightGCN"])


if __name__ == "__main__":
    main()
