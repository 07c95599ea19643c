"""Auto-encoders on ml-100k: the linear one in closed form, and those that are trained.

    python workflow/autoencoders.py [--jobs 2]

Validation ndcg@20 chooses among BUDGET settings a method (study autoencoders-tune); the chosen ones
are run with each seed, without the terms and with ALPHA and BETA (study autoencoders). The terms'
weights are not searched: they show a direction, not a best. The square loss, which has no use for
the temperature, is also recorded with the law at VARIANCE, about that of its errors.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

from runs import best, in_parallel, run_all, search
from study import AUTOENCODERS, Study, carry_over, searched, seeded

from inforec.experiment import RunConfig
from inforec.models import REGISTRY

BUDGET, SEEDS = 4, 3
ALPHA, BETA = 1.0, 0.3
VARIANCE = 0.03
STUDY = Study(
    {"dataset": "ml-100k", "batch_size": 16384, "epochs": 100, "validate_every": 10, "patience": 3},
    budget=BUDGET,
    seeds=SEEDS,
    methods=("EASE", *AUTOENCODERS),
    ranges={"Mult-VAE": {"learning_rate": (0.005, 0.05)}},  # that of the others
    own={
        **{method: {"options.hidden": 100} for method in AUTOENCODERS},
        "Mult-VAE": {"options.hidden": 100, "options.dim": 32},
    },
)


def tune(method: str) -> RunConfig:
    """The chosen setting of a method."""
    return best(search(searched(STUDY, method), "autoencoders-tune", BUDGET), "autoencoders-tune")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2, help="processes, one thread each")
    given = parser.parse_args()
    chosen = in_parallel("tune", tune, [(method,) for method in STUDY.methods], given.jobs)
    carry_over("autoencoders", chosen)
    trained = [config for config in chosen if not REGISTRY[config.model].closed_form]
    rows = [*chosen, *(replace(config, alpha=ALPHA, beta=BETA) for config in trained)]
    rows += [replace(config, temperature=VARIANCE) for config in trained if config.loss == "mse"]
    runs = [config for row in rows for config in seeded(row, SEEDS)]
    run_all("compare", runs, "autoencoders", given.jobs)


if __name__ == "__main__":
    main()
