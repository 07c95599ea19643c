"""run(config) -> Record: what the notebooks, the workflow, the book and the tests all call."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import torch

from inforec import data, losses, regularizers, rerank, results
from inforec.batches import PairBatches, UserBatches
from inforec.checks import require_choice, require_number
from inforec.data.catalog import find
from inforec.evaluate import evaluate, evaluate_lists, recommend, score_blocks
from inforec.models import REGISTRY
from inforec.results import Record
from inforec.train import (
    DEVICES,
    PRECISIONS,
    FitConfig,
    Objective,
    Regularizer,
    choose_device,
    fit,
)
from inforec.types import Query

LOSSES = ("softmax", "bpr", "sampled_softmax")
RERANKERS = ("none", "steck")


@dataclass(frozen=True)
class RunConfig:
    """One run, completely: data, model, objective, training, evaluation.

    Args:
        dataset: a name of the catalogue or the path of a data-set folder.
        split: "random", "leave_one_out", "temporal" or "given".
        min_rating: ratings below are dropped.
        min_interactions: users with fewer are dropped.
        split_seed: draws the split; kept apart from ``seed`` so that seeds compare on one split.
        model: a name in ``inforec.models.REGISTRY``.
        options: the model's own hyper-parameters, by the names of its ``Config``.
        loss: "softmax" over the whole catalogue, "bpr", or "sampled_softmax".
        alpha: weight of KL(P_u || Q_u) over categories.
        beta: weight of the entropy H(Q_u) over items.
        temperature: divides the scores in Q_u and in the softmax losses.
        perplexity: if given, the KL term sees Q_u at this perplexity instead (a soft top-k); the
            entropy is then constant, so beta must be 0.
        negatives: sampled negatives a pair, for "sampled_softmax".
        epochs, batch_size, learning_rate, weight_decay, validate_every, patience: see
            :class:`inforec.train.FitConfig`; a batch holds about ``batch_size`` interactions.
        reranker: "none", or "steck" on the best ``candidates`` items.
        trade_off: Steck's lambda, from 0 (scores only) to 1 (calibration only).
        candidates: items the reranker may choose from.
        k: list length K; early stopping watches ndcg@K.
        seed: fixes initial weights, batches and negatives.
        device: "auto", "cpu" or "cuda".
        precision: see :class:`inforec.train.FitConfig`.

    Raises:
        ValueError: for an unknown name or a value out of range.
    """

    dataset: str = "ml-100k"
    split: str = "random"
    min_rating: float = 4.0
    min_interactions: int = 5
    split_seed: int = 2026
    model: str = "lightgcn"
    options: dict = field(default_factory=dict)
    loss: str = "softmax"
    alpha: float = 0.0
    beta: float = 0.0
    temperature: float = 0.5
    perplexity: float | None = None
    negatives: int = 64
    epochs: int = 200
    batch_size: int = 2048
    learning_rate: float = 0.01
    weight_decay: float = 5e-5
    validate_every: int = 5
    patience: int = 5
    reranker: str = "none"
    trade_off: float = 0.0
    candidates: int = 100
    k: int = 20
    seed: int = 0
    device: str = "auto"
    precision: str = "32-true"

    def __post_init__(self):
        if not isinstance(self.dataset, str) or not self.dataset:
            raise ValueError(f"dataset={self.dataset!r}: expected a name or a path, as a string")
        if not Path(self.dataset).is_dir():
            find(self.dataset)
        require_choice("split", self.split, ("random", "leave_one_out", "temporal", "given"))
        require_number("min_rating", self.min_rating)
        require_number("min_interactions", self.min_interactions, at_least=1, integer=True)
        require_number("split_seed", self.split_seed, at_least=0, integer=True)
        require_choice("model", self.model, REGISTRY)
        self.model_config()
        require_choice("loss", self.loss, LOSSES)
        require_number("alpha", self.alpha, at_least=0)
        require_number("beta", self.beta, at_least=0)
        require_number("temperature", self.temperature, above=0)
        if self.perplexity is not None:
            require_number("perplexity", self.perplexity, above=1)
            if self.beta:
                raise ValueError(
                    f"beta={self.beta!r} with perplexity={self.perplexity!r}: expected beta 0, "
                    "because a fixed perplexity fixes the entropy"
                )
            if not self.alpha:
                raise ValueError(
                    f"perplexity={self.perplexity!r} with alpha=0: expected alpha above 0, because "
                    "the perplexity is that of the law in the KL term"
                )
        if REGISTRY[self.model].closed_form and (self.alpha or self.beta):
            raise ValueError(
                f"alpha={self.alpha!r}, beta={self.beta!r} with model={self.model!r}: expected "
                "both to be 0, because this model is solved in closed form: set alpha and beta to 0"
            )
        require_number("negatives", self.negatives, at_least=1, integer=True)
        require_number("batch_size", self.batch_size, at_least=1, integer=True)
        require_choice("reranker", self.reranker, RERANKERS)
        require_number("trade_off", self.trade_off, at_least=0, at_most=1)
        if self.trade_off and self.reranker == "none":
            raise ValueError(
                f"trade_off={self.trade_off!r} with reranker='none': expected 0, or a reranker"
            )
        require_number("k", self.k, at_least=1, integer=True)
        require_number("candidates", self.candidates, at_least=1, integer=True)
        if self.reranker != "none" and self.candidates < self.k:
            raise ValueError(
                f"candidates={self.candidates!r} with k={self.k!r}: expected at least k"
            )
        require_choice("device", self.device, DEVICES)
        require_choice("precision", self.precision, PRECISIONS)
        self.fit_config()

    def model_config(self):
        """The model's own ``Config``, checked."""
        model = REGISTRY[self.model]
        if not isinstance(self.options, dict):
            raise ValueError(f"options={self.options!r}: expected a dict of names and values")
        for name in self.options:
            known = model.Config.__dataclass_fields__
            if not known:
                raise ValueError(f"options={self.options!r}: {self.model!r} has no options")
            require_choice(f"options of {self.model!r}", name, known)
        return model.Config(**self.options)

    def fit_config(self, **further) -> FitConfig:
        """The part that :func:`inforec.train.fit` reads."""
        return FitConfig(
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            validate_every=self.validate_every,
            patience=self.patience,
            monitor=f"ndcg@{self.k}",
            seed=self.seed,
            device=self.device,
            precision=self.precision,
            **further,
        )

    def to_dict(self) -> dict:
        """All fields, with the model's options complete: what a record stores and hashes."""
        return {**_values(self), "options": _values(self.model_config())}


def run(
    config: RunConfig,
    *,
    results: Path | str | None = None,
    callbacks: Sequence[Callable[[dict], None]] = (),
    progress: bool = True,
) -> Record:
    """Train, choose on validation, report on test, and record.

    Args:
        config: what to run.
        results: the folder of the study, such as "results/first-grid"; an equal run found there is
            returned, not repeated, and an interrupted one is resumed. None keeps nothing.
        callbacks: called with each epoch's entry of the history.
        progress: show a progress bar on stderr.

    Returns:
        The record; its lists are with it unless it was found without them (a committed study).
    """
    settings = config.to_dict()
    run_id = _results.run_id(settings)
    folder = Path(results) if results is not None else None
    dataset = _load(config)
    if folder is not None and (found := _results.find(settings, folder)):
        if found.provenance["data"] == dataset.fingerprint:  # a folder of one's own may change
            return found

    _check_candidates(config, dataset)
    device = choose_device(config.device)
    dataset = dataset.to(device)
    torch.manual_seed(config.seed)
    model = REGISTRY[config.model](dataset.train, config.model_config())
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    start = time.perf_counter()
    history = fit(
        model,
        _batches(config, dataset),
        _objective(config),
        config.fit_config(
            checkpoint=folder / f"{run_id}.ckpt" if folder is not None else None,
            checkpoint_key=f"{run_id} {dataset.fingerprint}",
            progress=progress,
        ),
        regularizers=_regularizers(config, dataset),
        validate=lambda model: evaluate(model, dataset, (config.k,), "valid")[0],
        callbacks=callbacks,
    )
    trained = time.perf_counter()
    metrics, lists = {}, {}
    for on in ("valid", "test"):
        lists[on] = _lists(config, model, dataset, on)
        metrics[on] = evaluate_lists(lists[on], dataset, (config.k,), on)
    evaluated = time.perf_counter()

    epochs = sum(entry["epoch"] > 0 for entry in history)
    record = Record(
        config=settings,
        run_id=run_id,
        study=folder.name if folder is not None else "",
        valid=metrics["valid"],
        test=metrics["test"],
        history=history,
        cost={
            "seconds": trained - start,
            "seconds_per_epoch": sum(e["seconds"] for e in history) / max(1, epochs),
            "seconds_evaluation": evaluated - trained,
            "peak_memory_mib": _peak_memory_mib(device),
            "parameters": sum(p.numel() for p in model.parameters()),
            "epochs": epochs,
        },
        provenance=_results.provenance(device=device, data=dataset.fingerprint, seed=config.seed),
        arrays=_arrays(config, model, dataset, lists["test"]),
    )
    if folder is not None:
        _results.write(record, folder)
    return record


def _values(config) -> dict:
    """The fields by name, where 1 and 1.0 are the same value of a field of floats."""
    kinds = {"float": float, "int": int}
    return {
        field.name: value if value is None else kinds.get(field.type.split(" ")[0], _same)(value)
        for field in fields(config)
        for value in [getattr(config, field.name)]
    }


def _same(value):
    return value


_results = results  # the argument of run() has the same name


def _load(config: RunConfig):
    return data.load(
        config.dataset,
        split=config.split,
        min_rating=config.min_rating,
        min_interactions=config.min_interactions,
        seed=config.split_seed,
    )


def _batches(config: RunConfig, dataset):
    if config.loss == "softmax":
        return UserBatches(dataset.train, config.batch_size, config.seed)
    return PairBatches(
        dataset.train,
        config.batch_size,
        config.seed,
        negatives=1 if config.loss == "bpr" else config.negatives,
        popular=config.loss == "sampled_softmax",
    )


def _objective(config: RunConfig) -> Objective:
    functions = {
        "softmax": lambda output, batch: losses.softmax(
            output.distribution.with_temperature(config.temperature), output.target
        ),
        "bpr": lambda output, batch: losses.bpr(output.logits[:, 0], output.logits[:, 1:]),
        "sampled_softmax": lambda output, batch: losses.sampled_softmax(
            output.logits, batch.log_q, config.temperature
        ),
    }
    return Objective(config.loss, functions[config.loss])


def _regularizers(config: RunConfig, dataset) -> dict[str, Regularizer]:
    terms = {}
    if config.alpha:

        def category_kl(output, batch):
            law = output.distribution.with_temperature(config.temperature)
            if config.perplexity is not None:
                law = output.distribution.at_perplexity(config.perplexity)
            interest_BC = dataset.interest_UC[batch.user]
            return regularizers.category_kl(law, interest_BC, dataset.category_NC)

        terms["category_kl"] = Regularizer(config.alpha, category_kl)
    if config.beta:
        terms["entropy"] = Regularizer(
            -config.beta,
            lambda output, batch: regularizers.entropy(
                output.distribution.with_temperature(config.temperature)
            ),
        )
    return terms


def _check_candidates(config: RunConfig, dataset) -> None:
    """Before anything is trained: the reranker must have its candidates for every user."""
    if config.reranker == "none":
        return
    left_U = dataset.num_items - dataset.train.user_counts - dataset.valid.user_counts
    if int(left_U.min()) < config.candidates:
        raise ValueError(
            f"candidates={config.candidates}: user index {int(left_U.argmin())} has only "
            f"{int(left_U.min())} items left to choose from"
        )


@torch.no_grad()
def _lists(config: RunConfig, model, dataset, on: str):
    """(U, k) lists, reranked where the configuration says so."""
    if config.reranker == "none":
        return recommend(model, dataset, config.k, on)
    candidate_UM = recommend(model, dataset, config.candidates, on)
    lists = []
    for user_B, score_BN in score_blocks(model, dataset.train.history_UT, dataset.num_items):
        item_BM = candidate_UM[user_B]
        lists.append(
            rerank.steck(
                score_BN.gather(1, item_BM) / config.temperature,
                item_BM,
                dataset.interest_UC[user_B],
                dataset.category_NC,
                k=config.k,
                trade_off=config.trade_off,
            )
        )
    return torch.cat(lists)


@torch.no_grad()
def _arrays(config: RunConfig, model, dataset, top_UK) -> dict:
    """The lists, and Q_u over categories where the data set has them."""
    arrays = {"top_UK": top_UK.cpu().numpy()}
    if dataset.category_NC is not None:
        rows = []
        for user_B in torch.arange(dataset.num_users, device=top_UK.device).split(1024):
            batch = Query(user_B, dataset.train.history_UT[user_B])
            law = model.law(batch).with_temperature(config.temperature)
            rows.append(law.mean(dataset.category_NC))
        arrays["law_UC"] = torch.cat(rows).cpu().numpy()
    return arrays


def _peak_memory_mib(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
