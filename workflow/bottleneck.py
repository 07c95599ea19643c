"""A measured bottleneck: rate, information and distortion of Mult-VAE by the weight of its rate.

    python workflow/bottleneck.py [--jobs 2]

Mult-VAE is trained on ml-100k with every weight of the rate and every seed for a fixed number of
epochs (LAST); at one weight also with every alpha; and with some of the weights with the epoch of
the best validation kept (BEST). The trained models go to bottleneck-train, and one
record of what they hold to bottleneck.

The key figures of a record's `law`, in nats; codes are those of the training items, all of them:

rate                   mean over users of KL(p(z | u) || N(0, I))
information            I(U; Z), the user drawn evenly: mean of log p(z | u) - log mean_v p(z | v)
information_error      its standard error, of the draws of z
active                 coordinates of the code whose own rate is above 0.01
item_information       I(U; I): mean over users of KL(Q_u || mean_v Q_v), with Q_u as it is served
distortion_PART        mean over the interactions of PART of -log Q(i | z), z drawn
nll_PART               the same with z the mean, as it is served (as in every record)
entropy, category_kl   of Q_u as it is served (as in every record)

Shape letters: U users, B users of a block, S draws of a code, D numbers of a code, N items.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import replace
from pathlib import Path

import torch
from runs import in_parallel
from torch import Tensor

from inforec import results as store
from inforec.experiment import RunConfig, run, trained
from inforec.regularizers import gaussian_rate, kl
from inforec.results import Record

LAST = RunConfig(
    dataset="ml-100k",
    model="multvae",
    options={"hidden": 100, "dim": 32, "dropout": 0.5, "anneal": 20},
    temperature=1.0,
    batch_size=4096,
    learning_rate=0.005,
    weight_decay=0.0,
    epochs=60,
    validate_every=60,
    device="cpu",
)
BEST = replace(LAST, validate_every=5, patience=60)
WEIGHTS = (0.0, 0.1, 0.3, 1.0, 2.0, 4.0, 8.0, 16.0)
BEST_WEIGHTS = (0.0, 0.3, 1.0, 2.0)
ALPHAS = (0.3, 1.0, 3.0)
ALPHA_WEIGHT = 2.0
SEEDS = 3
DRAWS = 16
ACTIVE = 0.01  # nats, above which a coordinate of the code counts as used


def configs() -> list[RunConfig]:
    """Every run of the study."""
    grid = [_weighted(LAST, weight) for weight in WEIGHTS]
    grid += [_weighted(replace(LAST, alpha=alpha), ALPHA_WEIGHT) for alpha in ALPHAS]
    grid += [_weighted(BEST, weight) for weight in BEST_WEIGHTS]
    return [replace(config, seed=seed) for config in grid for seed in range(SEEDS)]


def _weighted(base: RunConfig, weight: float) -> RunConfig:
    return replace(base, options={**base.options, "weight": weight})


def measure(config: RunConfig, folder: Path | str, training: Path | str) -> Record:
    """Train (or find) a model, read its codes, and record; an equal record is found.

    Args:
        config: what is trained.
        folder: of the record that is made.
        training: of the trained model's record and weights.
    """
    settings = {**config.to_dict(), "bottleneck": {"draws": DRAWS, "active": ACTIVE}}
    if found := store.find(settings, folder):
        return found
    of_training = run(config, results=training, progress=False)
    model, dataset = trained(config, training)
    start = time.perf_counter()
    law = of_training.law | codes_and_laws(model.double(), dataset, DRAWS)
    record = Record(
        config=settings,
        run_id=store.run_id(settings),
        study=Path(folder).name,
        valid=of_training.valid,
        test=of_training.test,
        law=law,
        history=of_training.history,
        cost={**of_training.cost, "seconds_evaluation": time.perf_counter() - start},
        provenance=store.provenance(
            device=torch.device("cpu"), data=dataset.fingerprint, seed=config.seed
        )
        | {"trained": of_training.provenance["commit"]},
    )
    store.write(record, folder)
    return record


@torch.no_grad()
def codes_and_laws(model, dataset, draws: int) -> dict[str, float]:
    """The figures of `law` named at the top of this file, apart from those of every record."""
    mean_UD, log_variance_UD = model.encode(dataset.train.history_UT)
    generator = torch.Generator().manual_seed(0)
    noise_SUD = torch.randn(draws, *mean_UD.shape, generator=generator, dtype=mean_UD.dtype)
    code_SUD = mean_UD + (log_variance_UD / 2).exp() * noise_SUD
    information_SU = torch.stack(
        [_information(code_UD, mean_UD, log_variance_UD) for code_UD in code_SUD]
    )
    single = zip(mean_UD.split(1, 1), log_variance_UD.split(1, 1), strict=True)
    rates = [float(gaussian_rate(mean_U1, v_U1).mean()) for mean_U1, v_U1 in single]
    law_UN = _scores(model, mean_UD).softmax(1)
    log_law_UN = sum(_scores(model, code_UD).log_softmax(1) for code_UD in code_SUD) / draws
    parts = {name: getattr(dataset, name) for name in ("train", "valid", "test")}
    return {
        "rate": float(gaussian_rate(mean_UD, log_variance_UD).mean()),
        "information": float(information_SU.mean()),
        "information_error": float(information_SU.std() / math.sqrt(information_SU.numel())),
        "active": sum(rate > ACTIVE for rate in rates),
        "item_information": float(kl(law_UN, law_UN.mean(0)).mean()),
        **{
            f"distortion_{name}": float(-log_law_UN[part.user, part.item].mean())
            for name, part in parts.items()
        },
    }


def _information(code_UD: Tensor, mean_UD: Tensor, log_variance_UD: Tensor) -> Tensor:
    """(U,) log p(z_u | u) - log mean_v p(z_u | v) of one draw z_u for each user u."""
    precision_UD = (-log_variance_UD).exp()
    # sum_d (z - m)^2 / s^2, as three products of matrices
    square_UU = (
        code_UD.square() @ precision_UD.T
        - 2 * code_UD @ (mean_UD * precision_UD).T
        + (mean_UD.square() * precision_UD).sum(1)
    )
    log_density_UU = -(square_UU + log_variance_UD.sum(1)) / 2  # up to a constant, which cancels
    return log_density_UU.diagonal() - log_density_UU.logsumexp(1) + math.log(len(code_UD))


def _scores(model, code_UD: Tensor) -> Tensor:
    query_UX, item_NX = model.decode(code_UD)
    return query_UX @ item_NX.T


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2, help="processes, one thread each")
    given = parser.parse_args()
    folder, training = store.root() / "bottleneck", store.root() / "bottleneck-train"
    in_parallel("measure", measure, [(c, folder, training) for c in configs()], given.jobs)


if __name__ == "__main__":
    main()
