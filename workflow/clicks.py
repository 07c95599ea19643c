"""Click-through models on labelled rows: MovieLens-1M in two splits, and Frappe.

    python workflow/clicks.py [--jobs 1] [--models lr fm ...]

Each model has the same budget on each of the TUNED sets: the learning rates RATES with the weight
decays DECAYS, of which validation auc chooses one pair with the first seed (study
click-through-tune). That pair is run with every seed (study click-through), the one of the
time-ordered split also with the time as a field. Sizes are fixed (SIZES). DIN and BST need an order
of the rows, which Frappe has not.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

from runs import best, run_all
from study import carry_over, seeded

from inforec.experiment import RunConfig

STUDY = "click-through"
BASE = RunConfig(
    dataset="ml-1m-ctr",
    model="lr",
    loss="logistic",
    batch_size=4096,
    epochs=15,
    validate_every=1,
    patience=3,
    device="cpu",
)
TUNED = (("ml-1m-ctr", "random"), ("ml-1m-ctr", "time_ordered"), ("ctr-frappe", "given"))
MLP = {"dim": 16, "hidden": 64, "layers": 2}
SIZES = {
    "lr": {},
    "fm": {"dim": 16},
    "deepfm": MLP,
    "nfm": {"dim": 16, "hidden": 64},
    "widedeep": MLP,
    "ffm": {"dim": 4},
    "poly2": {},
    "din": MLP,
    "bst": {"history": 10, "dim": 8, "heads": 2, "hidden": 64},
}
RATES = (0.005, 0.02)
DECAYS = (1e-6, 1e-5)
SEEDS = 3
HISTORY = ("din", "bst")


def tried(model: str, dataset: str, split: str) -> list[RunConfig]:
    """The settings among which validation chooses."""
    config = replace(BASE, model=model, options=SIZES[model], dataset=dataset, split=split)
    return [replace(config, learning_rate=r, weight_decay=d) for r in RATES for d in DECAYS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1, help="processes, one thread each")
    parser.add_argument("--models", nargs="+", choices=SIZES, default=list(SIZES))
    given = parser.parse_args()
    for dataset, split in TUNED:
        for model in given.models:
            if model in HISTORY and split == "given":
                continue
            settings = tried(model, dataset, split)
            run_all(f"{model}, {split}, tune", settings, f"{STUDY}-tune", given.jobs)
            chosen = [best(settings, f"{STUDY}-tune", "auc")]
            carry_over(STUDY, chosen)
            if split == "time_ordered":
                chosen.append(replace(chosen[0], dataset="ml-1m-ctr-time"))
            runs = [c for config in chosen for c in seeded(config, SEEDS)]
            run_all(f"{model}, {split}", runs, STUDY, given.jobs)


if __name__ == "__main__":
    main()
