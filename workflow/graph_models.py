"""From NGCF to LightGCN, one piece at a time.

    python workflow/graph_models.py [--jobs 2]

On ml-100k NGCF loses one piece after another (PIECES) until it is LightGCN; and, beside this, the
whole NGCF has the mean of its layers (MEAN). Every rung has the same budget: the learning rates
RATES with the first seed, of which validation ndcg@20 chooses one, and that one with every seed.
Everything else is fixed (BASE). NGCF is also trained with the terms (TERMS), and the class LightGCN
once, at the setting of the last rung. The records go to graph-models.

To graph-models-code goes NGCF as its code and RecBole train it (CODE): the BPR loss, small batches,
and with the layers as they are or at unit length; RecBole's own rates are tried (CODE_RATES).
"""

from __future__ import annotations

import argparse
from dataclasses import replace

from runs import best, run_all

from inforec.experiment import RunConfig

STUDY = "graph-models"
BASE = RunConfig(
    dataset="ml-100k",
    model="ngcf",
    options={"dim": 32, "layers": 3},
    epochs=80,
    batch_size=65536,  # one step an epoch
    validate_every=10,
    patience=8,  # all epochs are run
    device="cpu",
)
PIECES = {  # what each rung takes away from the one above
    "nonlinearity": {"nonlinear": False},
    "affinity": {"affinity": False},
    "transforms": {"transform": False},
    "self-connection": {"self_connection": False},
    "concatenation": {"combine": "mean"},
    "message dropout": {"message_dropout": 0.0},
}
MEAN = replace(BASE, options={**BASE.options, "combine": "mean"})
RATES = (0.003, 0.01, 0.03, 0.1, 0.3)
SEEDS = 3
TERMS = {"alpha": 1.0, "beta": 1.0}
CODE = RunConfig(
    dataset="ml-100k",
    model="ngcf",
    options={"dim": 64, "layers": 3},
    loss="bpr",
    epochs=300,
    weight_decay=1e-5,
    device="cpu",
)
CODE_RATES = (0.001, 0.003, 0.01)


def ladder() -> list[RunConfig]:
    """NGCF, and what is left of it after each piece; the last is LightGCN."""
    rungs = [BASE]
    for options in PIECES.values():
        rungs.append(replace(BASE, options={**rungs[-1].options, **options}))
    return rungs


def rates(rung: RunConfig, among: tuple[float, ...] = RATES) -> list[RunConfig]:
    """The settings that are tried for a rung."""
    return [replace(rung, learning_rate=rate) for rate in among]


def further(chosen: list[RunConfig]) -> list[RunConfig]:
    """What is run at the chosen settings: every seed, NGCF with the terms, and LightGCN itself.

    Args:
        chosen: the setting of each rung of the ladder, in order, and last that of MEAN.
    """
    configs = [*chosen, replace(chosen[0], **TERMS)]
    light = replace(chosen[-2], model="lightgcn", options=BASE.options)
    return [light] + [replace(c, seed=seed) for c in configs for seed in range(SEEDS)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2, help="processes, one thread each")
    given = parser.parse_args()
    tried = [rates(rung) for rung in [*ladder(), MEAN]]
    run_all("rates", [config for rung in tried for config in rung], STUDY, given.jobs)
    chosen = [best(rung, STUDY) for rung in tried]
    run_all("seeds", further(chosen), STUDY, given.jobs)
    folder = f"{STUDY}-code"
    for combine in ("unit", "concat"):
        tried = rates(replace(CODE, options={**CODE.options, "combine": combine}), CODE_RATES)
        run_all(f"code, {combine}, rates", tried, folder, given.jobs)
        chosen = best(tried, folder)
        runs = [replace(chosen, seed=seed) for seed in range(SEEDS)]
        run_all(f"code, {combine}, seeds", runs, folder, given.jobs)


if __name__ == "__main__":
    main()
