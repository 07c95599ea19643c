"""From a law to a list: how far apart the two are, by the temperature of the law.

    python workflow/law_to_list.py [--jobs 2]

LightGCN with the softmax loss is trained without the KL term, with it, and with it on the law of
perplexity 20; each with every seed (study law-to-list-train, whose weights are kept). Each trained
model is then read at every perplexity of a grid, and one record a model goes to law-to-list.

The keys of a record's metrics, all means over users, on laws and lists without the items taken:

calibration_kl@K       of the list of length K, as everywhere in the book
law_kl@k               the same divergence, smoothed in the same way, of the law of perplexity k
gap_topK@k             mean of the absolute difference of the two, user by user
mass_topK@k            what the law of perplexity k puts on the K items of the list
category_tv_topK@k     total variation between the categories of law and list
item_tv_topK@k         total variation between the law and the uniform law on the list
mean_score_topK@k      E_Q[s] minus the mean score of the list, over the temperature
temperature@k          at which the law has the perplexity k
own_perplexity, own_law_kl    of the law at the temperature of training
catalogue_kl           of the uniform law on all items left: the limit of a high temperature

In training nothing is excluded. What the KL term then sees stands in the record's `law`, as means
over all users: whole_law_kl@k, smoothed like the others, and taken_mass@k, what the law of
perplexity k puts on the training items.

Shape letters: U users, B users of a block, N items, C categories, K list length.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from runs import in_parallel
from torch import Tensor

from inforec import data
from inforec import results as store
from inforec.distribution import ItemDistribution
from inforec.evaluate import (
    best_items,
    evaluate_lists,
    score_blocks,
    taken_items,
    untaken_scores,
)
from inforec.experiment import RunConfig, run
from inforec.metrics.calibration import calibration_kl
from inforec.metrics.diversity import list_categories
from inforec.models import REGISTRY
from inforec.results import Record
from inforec.types import PAD

BASE = RunConfig(
    dataset="ml-100k",
    model="lightgcn",
    options={"layers": 3},
    batch_size=16384,
    learning_rate=0.03,
    weight_decay=5e-5,
    temperature=0.5,
    epochs=300,
    patience=8,
    validate_every=5,
    device="cpu",
)
MODELS = (BASE, replace(BASE, alpha=1.0), replace(BASE, alpha=1.0, perplexity=20.0))
SEEDS = 3
TOLERANCE = 1e-4  # of log perplexity, before a Newton step that squares it


@dataclass(frozen=True)
class Grid:
    """At which perplexities a law is read, and which lists it is held against."""

    perplexities: tuple[int, ...] = (
        *(2, 3, 5, 7, 10, 14, 20, 30, 50),
        *(70, 100, 140, 200, 300, 500, 700, 1000),
    )
    lengths: tuple[int, ...] = (1, 5, 10, 20, 50)

    def to_dict(self) -> dict:
        return {"perplexities": list(self.perplexities), "lengths": list(self.lengths)}


def measure(config: RunConfig, grid: Grid, folder: Path | str, training: Path | str) -> Record:
    """Train (or find) a model, read its laws and lists, and record; an equal record is found.

    Args:
        config: what is trained.
        grid: what is read.
        folder: of the record that is made.
        training: of the trained model's record and weights.
    """
    settings = {**config.to_dict(), "law_to_list": grid.to_dict()}
    if found := store.find(settings, folder):
        return found
    trained = run(config, results=training, progress=False)
    dataset = data.load(config.dataset, split=config.split, seed=config.split_seed)
    model = REGISTRY[config.model](dataset.train, config.model_config())
    weights = torch.load(Path(training) / f"{trained.run_id}.weights", weights_only=True)
    model.load_state_dict(weights["model"])
    start = time.perf_counter()
    metrics = {on: laws_and_lists(model, dataset, config, grid, on) for on in ("valid", "test")}
    law = trained.law | whole_laws(model, dataset, grid)
    provenance = store.provenance(
        device=torch.device("cpu"), data=dataset.fingerprint, seed=config.seed
    )
    provenance["trained"] = trained.provenance["commit"]
    record = Record(
        config=settings,
        run_id=store.run_id(settings),
        study=Path(folder).name,
        valid=metrics["valid"],
        test=metrics["test"],
        law=law,
        history=[],
        cost={**trained.cost, "seconds_evaluation": time.perf_counter() - start},
        provenance=provenance,
    )
    store.write(record, folder)
    return record


@torch.no_grad()
def laws_and_lists(model, dataset, config: RunConfig, grid: Grid, on: str) -> dict[str, float]:
    """The metrics named at the top of this file, on one split."""
    blocks, top = defaultdict(list), []
    taken_UT = taken_items(dataset, on)
    for user_B, score_BN in untaken_scores(model, dataset, on):
        top.append(best_items(score_BN, max(grid.lengths)))
        law = ItemDistribution.from_logits(
            score_BN.masked_fill(score_BN == -torch.inf, 0.0).double(),
            exclude_BT=taken_UT[user_B],
        )
        interest_BC, category_NC = dataset.interest_UC[user_B].double(), dataset.category_NC
        for name, value_B in _of_laws(
            law, top[-1], interest_BC, category_NC.double(), config.temperature, grid
        ):
            blocks[name].append(value_B)
    evaluated_U = getattr(dataset, on).user_counts > 0  # as for every metric of lists
    return evaluate_lists(torch.cat(top), dataset, grid.lengths, on) | {
        name: float(torch.cat(values)[evaluated_U].mean()) for name, values in blocks.items()
    }


@torch.no_grad()
def whole_laws(model, dataset, grid: Grid) -> dict[str, float]:
    """The figures of `law` named at the top of this file: of laws without excluded items."""
    blocks = defaultdict(list)
    history_UT = dataset.train.history_UT
    for user_B, score_BN in score_blocks(model, history_UT, dataset.num_items):
        law = ItemDistribution.from_logits(score_BN.double())
        history_BT = history_UT[user_B]
        for perplexity in grid.perplexities:
            soft = law.at_perplexity(perplexity, tolerance=TOLERANCE)
            law_BC = soft.mean(dataset.category_NC.double())
            kl_B = calibration_kl(dataset.interest_UC[user_B], law_BC)
            blocks[f"whole_law_kl@{perplexity}"].append(kl_B)
            taken_BT = soft.log_prob(history_BT).exp().masked_fill(history_BT == PAD, 0.0)
            blocks[f"taken_mass@{perplexity}"].append(taken_BT.sum(1))
    return {name: float(torch.cat(values).mean()) for name, values in blocks.items()}


def _of_laws(
    law: ItemDistribution,
    top_BK: Tensor,
    interest_BC: Tensor,
    category_NC: Tensor,
    temperature: float,
    grid: Grid,
) -> Iterator[tuple[str, Tensor]]:
    """Yield (name, (B,) values) for laws of the scores in ``law``."""

    def divergence(law):
        return calibration_kl(interest_BC, law.mean(category_NC))

    list_of = {
        k: (top_BK[:, :k], list_categories(top_BK[:, :k], category_NC)) for k in grid.lengths
    }
    own = law.with_temperature(temperature)
    yield "own_perplexity", own.perplexity()
    yield "own_law_kl", divergence(own)
    # A temperature so high that the scores no longer matter.
    yield "catalogue_kl", divergence(law.with_temperature(1e9))
    for perplexity in grid.perplexities:
        soft = law.at_perplexity(perplexity, tolerance=TOLERANCE)
        law_BC = soft.mean(category_NC)
        kl_B = calibration_kl(interest_BC, law_BC)
        yield f"law_kl@{perplexity}", kl_B
        yield f"temperature@{perplexity}", soft.temperature
        mean_log_prob_B = -soft.entropy()
        for k, (item_BK, list_BC) in list_of.items():
            log_prob_BK = soft.log_prob(item_BK)
            prob_BK = log_prob_BK.exp()
            mass_B = prob_BK.sum(1)
            inside_B = (prob_BK - 1 / k).abs().sum(1)
            gap_B = (kl_B - calibration_kl(interest_BC, list_BC)).abs()
            yield f"gap_top{k}@{perplexity}", gap_B
            yield f"mass_top{k}@{perplexity}", mass_B
            yield f"item_tv_top{k}@{perplexity}", (1 - mass_B + inside_B) / 2
            yield f"category_tv_top{k}@{perplexity}", (law_BC - list_BC).abs().sum(1) / 2
            # log Q differs from s / temperature by a constant, which cancels.
            yield f"mean_score_top{k}@{perplexity}", mean_log_prob_B - log_prob_BK.mean(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2, help="processes, one thread each")
    given = parser.parse_args()
    folder, training = store.root() / "law-to-list", store.root() / "law-to-list-train"
    configs = [replace(config, seed=seed) for config in MODELS for seed in range(SEEDS)]
    in_parallel(
        "measure", measure, [(config, Grid(), folder, training) for config in configs], given.jobs
    )


if __name__ == "__main__":
    main()
