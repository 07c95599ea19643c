"""Rating prediction at AutoRec's protocol: AutoRec and BiasedMF on MovieLens-1M and -100K.

    python workflow/ratings.py [--datasets ml-100k ml-1m] [--splits 5]

The validation rmse of the first split chooses each method's penalty (study ratings-tune); the
chosen setting is then run on further splits, each with its own seed (study ratings). The paper's
other activations have the penalty of its main pair, and the first split only.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import torch
from study import carry_over

from inforec import results
from inforec.experiment import RunConfig, run

FIRST = 2026  # seed of the first split
PENALTIES = {"AutoRec": (100.0, 200.0, 300.0, 500.0), "BiasedMF": (0.03, 0.05, 0.08, 0.12)}
TRAINING = {
    "ml-1m": {
        "AutoRec": {"batch_size": 65536, "learning_rate": 0.001, "epochs": 40},
        "BiasedMF": {"batch_size": 16384, "learning_rate": 0.005, "epochs": 40},
    },
    "ml-100k": {
        "AutoRec": {"batch_size": 8192, "learning_rate": 0.001, "epochs": 100},
        "BiasedMF": {"batch_size": 4096, "learning_rate": 0.005, "epochs": 100},
    },
}
METHODS = {
    "I-AutoRec": ("autorec", {"rows": "item"}),
    "U-AutoRec": ("autorec", {"rows": "user"}),
    "BiasedMF": ("biasedmf", {"dim": 64}),
}
PAIRS = (("identity", "identity"), ("sigmoid", "identity"), ("sigmoid", "sigmoid"))  # f, g


def setting(dataset: str, method: str, penalty: float) -> RunConfig:
    """One method's run on the first split."""
    model, options = METHODS[method]
    return RunConfig(
        dataset=dataset,
        split_seed=FIRST,
        model=model,
        options={**options, "penalty": penalty},
        loss="mse",
        weight_decay=0.0,
        validate_every=1,
        patience=8,
        **TRAINING[dataset][method.split("-")[-1]],
    )


def tune(dataset: str, method: str) -> RunConfig:
    """The setting of the penalty with the lowest validation rmse."""
    tried = [setting(dataset, method, value) for value in PENALTIES[method.split("-")[-1]]]
    folder = results.root() / "ratings-tune"
    return min(tried, key=lambda one: run(one, results=folder, progress=False).valid["rmse"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--datasets", nargs="+", choices=TRAINING, default=list(TRAINING))
    parser.add_argument("--splits", type=int, default=5, help="splits of each data set")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for dataset in given.datasets:
        chosen = [tune(dataset, method) for method in METHODS]
        carry_over("ratings", chosen)
        rows = [
            replace(one, split_seed=FIRST + n, seed=n)
            for n in range(given.splits)
            for one in chosen
        ]
        for output, hidden in PAIRS:
            options = {"output_activation": output, "hidden_activation": hidden}
            rows.append(replace(chosen[0], options={**chosen[0].options, **options}))
        for config in rows:
            run(config, results=results.root() / "ratings", progress=False)


if __name__ == "__main__":
    main()
