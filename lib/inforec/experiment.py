"""run(config) -> Record: what the notebooks, the workflow, the book and the tests all call."""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import torch
from torch import Tensor

from inforec import data, losses, regularizers, rerank, results
from inforec.batches import ImpressionBatches, PairBatches, RatingBatches, UserBatches
from inforec.checks import require_choice, require_number
from inforec.data.catalog import find
from inforec.data.impressions import IMPRESSIONS, SPLITS
from inforec.distribution import ItemDistribution
from inforec.evaluate import (
    evaluate,
    evaluate_clicks,
    evaluate_lists,
    evaluate_ratings,
    recommend,
    taken_items,
    untaken_scores,
    user_metrics,
)
from inforec.memory import in_blocks, out_of_memory
from inforec.metrics.calibration import SMOOTHING
from inforec.models import REGISTRY, ClickModel, Ranker, RatingModel
from inforec.regularizers import kl
from inforec.results import Record
from inforec.train import (
    DEVICES,
    PRECISIONS,
    FitConfig,
    Objective,
    Regularizer,
    choose_device,
    fit,
    processes,
)
from inforec.types import Query

LOSSES = ("softmax", "bpr", "sampled_softmax", "sampled_logistic", "logistic", "mse", "own")
ROW_LOSSES = ("logistic", "mse")  # of the whole 0-1 row: for models that reconstruct it
RERANKERS = ("none", "steck", "expected_ndcg", "decaying_attention", "tilt", "tilt_steck")
TILTED = ("tilt", "tilt_steck", "expected_ndcg")
USER_METRICS = ("ndcg", "calibration_kl")  # kept for every user where a test needs them
# What models that rank nothing, but answer each row or rating by itself, have no use for.
RANKING_ONLY = (
    *("min_rating", "min_interactions", "temperature", "perplexity", "layer_alpha", "negatives"),
    *("reranker", "trade_off", "tilt_alpha", "decay", "rerank_perplexity", "candidates", "k"),
)
# What is decided after training: runs that differ only here share one trained model.
DECISION = ("reranker", "trade_off", "tilt_alpha", "decay", "rerank_perplexity", "candidates")


@dataclass(frozen=True)
class RunConfig:
    """One run, completely: data, model, objective, training, evaluation.

    Args:
        dataset: a name of the catalogue or the path of a data-set folder; for a click-through model
            one of labelled rows, as in :func:`inforec.data.load_impressions`; for a rating model
            one with ratings, as in :func:`inforec.data.load_ratings`.
        split: "random", "leave_one_out", "temporal" or "given"; of labelled rows "random",
            "time_ordered" or "given"; of ratings "random".
        min_rating: ratings below are dropped.
        min_interactions: users with fewer are dropped.
        split_seed: draws the split; kept apart from ``seed`` so that seeds compare on one split.
        model: a name in ``inforec.models.REGISTRY``.
        options: the model's own hyper-parameters, by the names of its ``Config``.
        loss: "softmax" over the whole catalogue, "bpr", "sampled_softmax", "sampled_logistic";
            "logistic" or "mse" over the whole 0-1 row, for auto-encoders; "logistic", and only
            that, for a click-through model; "mse", and only that, over the observed ratings, for a
            rating model; or "own" for a model whose own terms are a whole objective.
        alpha: weight of KL(P_u || Q_u) over categories.
        beta: weight of the entropy H(Q_u) over items.
        temperature: divides the scores in Q_u and in the softmax and logistic losses. Under a
            logistic loss Q_u is the law of the one item taken, if just one is; under "mse" the
            same, with the temperature as the variance of the errors.
        perplexity: if given, the KL term sees Q_u as a soft top-k instead: at this perplexity,
            without the items of the user's history, smoothed as in the metric calibration_kl. The
            entropy is then constant, so beta must be 0.
        layer_alpha: if above 0, the softmax loss sees the law tilted towards P_u with this weight
            against scores in nats: :func:`inforec.rerank.tilted` carries the calibration.
        negatives: sampled negatives a pair, for "sampled_softmax" and "sampled_logistic".
        epochs, batch_size, learning_rate, weight_decay, validate_every, patience: see
            :class:`inforec.train.FitConfig`; a batch holds about ``batch_size`` interactions.
        reranker: "none"; "steck" or "decaying_attention" on the best ``candidates`` items, whose
            scores enter as log Q_u(i), in nats; "tilt" of the law over all items left;
            "tilt_steck", the second on the items that the first puts on top; or "expected_ndcg",
            whose relevance is Q_u(i), tilted if ``tilt_alpha`` is above 0, in shares of NDCG.
        trade_off: lambda of the greedy rerankers, from 0 (scores only) to 1.
        tilt_alpha: weight of KL(P_u || Q_u) in the tilt, against scores in nats.
        decay: of decaying attention: each place has this share of the weight of the one above.
        rerank_perplexity: if given, rerankers see each user's law at this perplexity; else at
            ``temperature``.
        candidates: items the reranker may choose from.
        k: list length K; early stopping watches ndcg@K, auc for a click-through model, or rmse for
            a rating model.
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
    layer_alpha: float = 0.0
    negatives: int = 64
    epochs: int = 200
    batch_size: int = 2048
    learning_rate: float = 0.01
    weight_decay: float = 5e-5
    validate_every: int = 5
    patience: int = 5
    reranker: str = "none"
    trade_off: float = 0.0
    tilt_alpha: float = 0.0
    decay: float = 0.9
    rerank_perplexity: float | None = None
    candidates: int = 100
    k: int = 20
    seed: int = 0
    device: str = "auto"
    precision: str = "32-true"

    def __post_init__(self):
        if not isinstance(self.dataset, str) or not self.dataset:
            raise ValueError(f"dataset={self.dataset!r}: expected a name or a path, as a string")
        require_choice("model", self.model, REGISTRY)
        if self.clicks:
            self._check_clicks()
        elif self.dataset in IMPRESSIONS:
            raise ValueError(
                f"dataset={self.dataset!r} with model={self.model!r}: expected a click-through "
                "model, because this data set holds labelled rows"
            )
        else:
            if not Path(self.dataset).is_dir():
                find(self.dataset)
            if self.ratings:
                self._check_ratings()
            else:
                known = ("random", "leave_one_out", "temporal", "given")
                require_choice("split", self.split, known)
        require_number("min_rating", self.min_rating)
        require_number("min_interactions", self.min_interactions, at_least=1, integer=True)
        require_number("split_seed", self.split_seed, at_least=0, integer=True)
        self.model_config()
        require_choice("loss", self.loss, LOSSES)
        if self.clicks and self.loss != "logistic":
            raise ValueError(
                f"loss={self.loss!r} with model={self.model!r}: expected 'logistic', because "
                "click-through models have no other"
            )
        if self.ratings and self.loss != "mse":
            raise ValueError(
                f"loss={self.loss!r} with model={self.model!r}: expected 'mse', because rating "
                "models have no other"
            )
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
        require_number("layer_alpha", self.layer_alpha, at_least=0)
        if self.layer_alpha and self.loss != "softmax":
            raise ValueError(
                f"layer_alpha={self.layer_alpha!r} with loss={self.loss!r}: expected "
                "loss='softmax', the one that reads the whole law"
            )
        terms = {name: getattr(self, name) for name in ("alpha", "beta", "layer_alpha")}
        if REGISTRY[self.model].closed_form and any(terms.values()):
            given = ", ".join(f"{name}={value!r}" for name, value in terms.items())
            raise ValueError(
                f"{given} with model={self.model!r}: expected all to be 0, because this model is "
                "solved in closed form: set alpha and beta to 0"
            )
        if self.loss == "own" and not REGISTRY[self.model].own_loss:
            raise ValueError(
                f"loss='own' with model={self.model!r}: expected another loss, because this "
                "model's own terms are no whole objective"
            )
        model = REGISTRY[self.model]
        rows = not self.ranks or model.closed_form or model.reconstructs
        if self.loss in ROW_LOSSES and not rows:
            known = ", ".join(name for name, m in REGISTRY.items() if m.reconstructs)
            raise ValueError(
                f"loss={self.loss!r} with model={self.model!r}: expected a model that reconstructs "
                f"a user's whole row: one of {known}"
            )
        require_number("negatives", self.negatives, at_least=1, integer=True)
        require_number("batch_size", self.batch_size, at_least=1, integer=True)
        require_choice("reranker", self.reranker, RERANKERS)
        require_number("trade_off", self.trade_off, at_least=0, at_most=1)
        require_number("tilt_alpha", self.tilt_alpha, at_least=0)
        require_number("decay", self.decay, above=0, at_most=1)
        if self.rerank_perplexity is not None:
            require_number("rerank_perplexity", self.rerank_perplexity, above=1)
        for name, users in (
            ("trade_off", ("steck", "expected_ndcg", "decaying_attention", "tilt_steck")),
            ("tilt_alpha", TILTED),
            ("rerank_perplexity", RERANKERS[1:]),
        ):
            if getattr(self, name) and self.reranker not in users:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} with reranker={self.reranker!r}: expected "
                    f"{'none' if name == 'rerank_perplexity' else 0}, or a reranker that reads it: "
                    f"{', '.join(users)}"
                )
        if self.reranker.startswith("tilt"):
            require_number("tilt_alpha", self.tilt_alpha, above=0)
        require_number("k", self.k, at_least=1, integer=True)
        require_number("candidates", self.candidates, at_least=1, integer=True)
        if self.reranker != "none" and self.candidates < self.k:
            raise ValueError(
                f"candidates={self.candidates!r} with k={self.k!r}: expected at least k"
            )
        require_choice("device", self.device, DEVICES)
        require_choice("precision", self.precision, PRECISIONS)
        self.fit_config()

    @property
    def ranks(self) -> bool:
        """Whether the model scores all items for a user."""
        return issubclass(REGISTRY[self.model], Ranker)

    @property
    def clicks(self) -> bool:
        """Whether the model is one of click-through, for labelled rows."""
        return issubclass(REGISTRY[self.model], ClickModel)

    @property
    def ratings(self) -> bool:
        """Whether the model is one of ratings."""
        return issubclass(REGISTRY[self.model], RatingModel)

    def _check_clicks(self) -> None:
        if not Path(self.dataset).is_dir():
            require_choice(f"dataset (for model={self.model!r})", self.dataset, IMPRESSIONS)
        require_choice(f"split (for model={self.model!r})", self.split, SPLITS)
        if self.alpha or self.beta:
            raise ValueError(
                f"alpha={self.alpha!r}, beta={self.beta!r} with model={self.model!r}: expected "
                "both to be 0, because its law is of one column, whose softmax is the constant 1: "
                "there is no entropy and no law over categories in it. Train a ranking model with "
                "these terms, or take Q_u from the scores of all items for a user "
                "(ClickModel.law) or of an impression list (ItemDistribution.from_logits)"
            )
        self._check_no_ranking("labelled rows have no use for it")

    def _check_ratings(self) -> None:
        require_choice(f"split (for model={self.model!r})", self.split, ("random",))
        if self.alpha or self.beta:
            raise ValueError(
                f"alpha={self.alpha!r}, beta={self.beta!r} with model={self.model!r}: expected "
                "both to be 0, because its law is a Gaussian around each rating, which has no law "
                "over items in it. Q_u would be the softmax of a user's predicted ratings over all "
                "items, but the loss sees rated items only and trains no such law: train a ranking "
                "model with these terms"
            )
        self._check_no_ranking("every rating is kept and predicted by itself")

    def _check_no_ranking(self, why: str) -> None:
        for name in RANKING_ONLY:
            default = RunConfig.__dataclass_fields__[name].default
            if getattr(self, name) != default:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} with model={self.model!r}: expected the "
                    f"default {default!r}, because {why}"
                )

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
            monitor="auc" if self.clicks else "rmse" if self.ratings else f"ndcg@{self.k}",
            maximise=not self.ratings,
            seed=self.seed,
            device=self.device,
            precision=self.precision,
            **further,
        )

    def training(self) -> RunConfig:
        """The same run without a reranker: what decides the trained model."""
        defaults = {name: RunConfig.__dataclass_fields__[name].default for name in DECISION}
        return replace(self, **defaults)

    def to_dict(self) -> dict:
        """All fields, with the model's options complete: what a record stores and hashes."""
        return {**_values(self), "options": _values(self.model_config())}


def run(
    config: RunConfig,
    *,
    results: Path | str | None = None,
    per_user: bool = False,
    callbacks: Sequence[Callable[[dict], None]] = (),
    progress: bool = True,
) -> Record:
    """Train, choose on validation, report on test, and record.

    Args:
        config: what to run.
        results: the folder of the study, such as "results/first-grid"; an equal run found there is
            returned, not repeated, and an interrupted one is resumed. The trained weights stay
            beside the record, so that a run which differs in its reranker only trains nothing. None
            keeps nothing.
        per_user: keep the test metrics USER_METRICS of every user, for paired tests; not for
            click-through and rating models.
        callbacks: called with each epoch's entry of the history.
        progress: show a progress bar on stderr.

    Started by torchrun, all processes train one model together (:func:`inforec.train.fit`) and
    return the same; the first alone writes. The folder must be shared by all.

    Returns:
        The record; its lists are with it unless it was found without them (a committed study).
    """
    if per_user and not config.ranks:
        raise ValueError(
            f"per_user=True with model={config.model!r}: expected False, because the metrics of "
            "single users are those of lists"
        )
    settings = config.to_dict()
    run_id = _results.run_id(settings)
    folder = Path(results) if results is not None else None
    dataset = _load(config)
    found = None if folder is None else _results.find(settings, folder)
    if found and found.provenance["data"] != dataset.fingerprint:  # a folder of one's own changed
        found = None
    if found and (found.users or not per_user):
        # A second process that trained the same may have been killed after this record was made.
        _checkpoint(config, folder).unlink(missing_ok=True)
        return found
    if folder is not None and processes()[0] == 0:
        _results.prepare(folder)

    if config.ranks:
        _check_candidates(config, dataset)
    device = choose_device(config.device)
    dataset = dataset.to(device)
    torch.manual_seed(config.seed)
    model = REGISTRY[config.model](dataset.train, config.model_config())
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    start = time.perf_counter()
    history, commit = _fit(config, model, dataset, folder, callbacks, progress)
    trained = time.perf_counter()
    if config.clicks:
        measured = _measure_clicks(model, dataset)
    elif config.ratings:
        measured = _measure_ratings(model, dataset)
    else:
        measured = _measure(config, model, dataset, per_user)
    evaluated = time.perf_counter()
    law, law_UC = {}, None
    if config.ranks:
        law, law_UC = _law(config, model, dataset)
    if law_UC is not None:
        measured["arrays"]["law_UC"] = law_UC.cpu().numpy()

    epochs = sum(entry["epoch"] > 0 for entry in history)
    record = Record(
        config=settings,
        run_id=run_id,
        study=folder.name if folder is not None else "",
        law=law,
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
        **measured,
    )
    if commit is not None:
        record.provenance["trained"] = commit
    if found:  # it lacked only the values of single users
        record.history, record.cost = found.history, found.cost
    if folder is not None and processes()[0] == 0:
        _results.write(record, folder)
    _wait_for_all()
    return record


def _wait_for_all() -> None:
    """What the first process wrote is there for the next run of all processes."""
    if processes()[1] > 1 and torch.distributed.is_initialized():
        torch.distributed.barrier()


def trained(config: RunConfig, results: Path | str):
    """The model of a run and its data set, from the weights that the run left beside its record.

    A model in closed form has no weights stored, and is solved again.

    Returns:
        (model, dataset), the model ready to score: ``inforec.evaluate.recommend(model, dataset,
        20, "test")`` are the lists of the run, if it has no reranker.

    Raises:
        ValueError: where the folder has no weights of this training, or they are for other data.
    """
    dataset = _load(config)
    device = choose_device(config.device)
    dataset = dataset.to(device)
    model = REGISTRY[config.model](dataset.train, config.model_config()).to(device)
    if model.closed_form:
        model.on_fit_start()
    elif not _take_weights(config, model, dataset, Path(results)):
        raise ValueError(
            f"results={str(results)!r}: expected the weights of this run, for the data as they are "
            "now; inforec.experiment.run makes them, but they are not committed with records"
        )
    return model.eval(), dataset


def _measure(config: RunConfig, model, dataset, per_user: bool) -> dict:
    """What a ranking model's lists say, by the names of the record's attributes."""
    metrics, lists, users = {}, {}, {}
    for on in ("valid", "test"):
        lists[on] = _lists(config, model, dataset, on)
        metrics[on] = evaluate_lists(lists[on], dataset, (config.k,), on)
    if per_user:
        of_users = user_metrics(lists["test"], dataset, (config.k,), "test")
        users = {name: of_users[name].cpu().numpy() for name in _kept(of_users)}
    return {**metrics, "users": users, "arrays": {"top_UK": lists["test"].cpu().numpy()}}


def _measure_clicks(model, dataset) -> dict:
    """What a click-through model's predictions say, by the names of the record's attributes."""
    valid, _ = evaluate_clicks(model, dataset.valid)
    test, logit_E = evaluate_clicks(model, dataset.test)
    arrays = {"logit_E": logit_E.cpu().numpy(), "label_E": dataset.test.label.cpu().numpy()}
    return {"valid": valid, "test": test, "users": {}, "arrays": arrays}


def _measure_ratings(model, dataset) -> dict:
    """What a rating model's predictions say, by the names of the record's attributes."""
    valid, _ = evaluate_ratings(model, dataset.valid)
    test, rating_E = evaluate_ratings(model, dataset.test)
    arrays = {"rating_E": rating_E.cpu().numpy()}
    return {"valid": valid, "test": test, "users": {}, "arrays": arrays}


def _kept(values: Mapping) -> list[str]:
    return [name for name in values if name.split("@")[0] in USER_METRICS]


def _fit(
    config: RunConfig, model, dataset, folder: Path | None, callbacks, progress
) -> tuple[list[dict], str | None]:
    """Train the model, or take the weights that an earlier run with this training left.

    Returns:
        The history, and None; or, with weights found, the history if it was this run that trained
        them, else [], and the commit at which they were trained.
    """
    training_id, key = _training(config, dataset)
    run_id = _results.run_id(config.to_dict())
    checkpoint = _checkpoint(config, folder) if folder is not None else None
    if folder is not None and (saved := _take_weights(config, model, dataset, folder)):
        if processes()[0] == 0:
            checkpoint.unlink(missing_ok=True)
        # This run's own weights: it was stopped between its training and its record.
        return saved["history"] if saved.get("run_id") == run_id else [], saved["commit"]
    try:
        history = fit(
            model,
            _batches(config, model, dataset),
            _objective(config, dataset),
            config.fit_config(checkpoint=checkpoint, checkpoint_key=key, progress=progress),
            regularizers=_regularizers(config, dataset),
            validate=_validation(config, dataset),
            callbacks=callbacks,
        )
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise ValueError(
            f"batch_size={config.batch_size}: out of memory in training {config.model!r}: expected "
            "a smaller one, or smaller options of the model, such as dim. It is another run then, "
            "because what is said of a batch is not the sum of what is said of its parts"
        ) from error
    if folder is not None and not model.closed_form and processes()[0] == 0:
        state = {"key": key, "model": model.state_dict(), "commit": _results.commit()}
        state |= {"run_id": run_id, "history": history}
        _results.save_tensors(state, folder / f"{training_id}.weights")
        checkpoint.unlink(missing_ok=True)
    return history, None


def _checkpoint(config: RunConfig, folder: Path) -> Path:
    return folder / f"{_results.run_id(config.training().to_dict())}.ckpt"


def _validation(config: RunConfig, dataset) -> Callable:
    if config.clicks:
        return lambda model: evaluate_clicks(model, dataset.valid)[0]
    if config.ratings:
        return lambda model: evaluate_ratings(model, dataset.valid)[0]
    return lambda model: evaluate(model, dataset, (config.k,), "valid")[0]


def _training(config: RunConfig, dataset) -> tuple[str, str]:
    """The id of what decides the trained model, and the same with the data's fingerprint."""
    training_id = _results.run_id(config.training().to_dict())
    return training_id, f"{training_id} {dataset.fingerprint}"


def _take_weights(config: RunConfig, model, dataset, folder: Path) -> dict | None:
    """Load stored weights into the model; all that was stored with them, None if nothing was."""
    training_id, key = _training(config, dataset)
    weights = folder / f"{training_id}.weights"
    if not weights.exists():
        return None
    saved = _results.load_tensors(weights, dataset.train.user.device)
    if saved["key"] != key:
        return None
    model.to(dataset.train.user.device).load_state_dict(saved["model"])
    model.eval()
    return saved


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
    if config.clicks:
        history = getattr(config.model_config(), "history", 0)
        return data.load_impressions(
            config.dataset, split=config.split, seed=config.split_seed, history=history
        )
    if config.ratings:
        return data.load_ratings(config.dataset, seed=config.split_seed)
    return data.load(
        config.dataset,
        split=config.split,
        min_rating=config.min_rating,
        min_interactions=config.min_interactions,
        seed=config.split_seed,
    )


def _batches(config: RunConfig, model, dataset):
    if config.clicks:
        return ImpressionBatches(dataset.train, config.batch_size, config.seed)
    if config.ratings:
        return RatingBatches(dataset.train, config.batch_size, config.seed, model.whole)
    if config.loss in ("softmax", "own", *ROW_LOSSES):
        return UserBatches(dataset.train, config.batch_size, config.seed)
    return PairBatches(
        dataset.train,
        config.batch_size,
        config.seed,
        negatives=1 if config.loss == "bpr" else config.negatives,
        popular=config.loss == "sampled_softmax",
        history=model.reads_history or config.perplexity is not None,
    )


def _objective(config: RunConfig, dataset) -> Objective:
    def softmax(output, batch):
        law = output.distribution.with_temperature(config.temperature)
        if config.layer_alpha:
            interest_BC = dataset.interest_UC[batch.user]
            alpha = config.layer_alpha * config.temperature  # nats of score -> units of score
            law = rerank.tilted(law, interest_BC, dataset.category_NC, alpha=alpha)
        return losses.softmax(law, output.target)

    def logistic(output, batch):
        if config.clicks:
            return losses.binary_cross_entropy(output.logits, batch.target)
        return losses.logistic(output.query / config.temperature, output.item, output.target)

    def mse(output, batch):
        if config.ratings:
            return losses.squared_error(output.logits, output.target)
        return losses.mse(output.query, output.item, output.target)

    functions = {
        "softmax": softmax,
        "bpr": lambda output, batch: losses.bpr(output.logits[:, 0], output.logits[:, 1:]),
        "sampled_softmax": lambda output, batch: losses.sampled_softmax(
            output.logits, batch.log_q, config.temperature
        ),
        "sampled_logistic": lambda output, batch: losses.sampled_logistic(
            output.logits / config.temperature
        ),
        "logistic": logistic,
        "mse": mse,
        "own": lambda output, batch: batch.user.new_zeros((), dtype=torch.float32),
    }
    return Objective(config.loss, functions[config.loss])


def _regularizers(config: RunConfig, dataset) -> dict[str, Regularizer]:
    terms = {}
    if config.alpha:

        def category_kl(output, batch):
            interest_BC = dataset.interest_UC[batch.user]
            if config.perplexity is None:
                law = output.distribution.with_temperature(config.temperature)
                return regularizers.category_kl(law, interest_BC, dataset.category_NC)
            # As lists are made and measured: without what the user has taken, and smoothed.
            law = output.distribution.without(batch.history).at_perplexity(config.perplexity)
            return regularizers.category_kl(
                law, interest_BC, dataset.category_NC, smoothing=SMOOTHING
            )

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
    if config.reranker in ("none", "tilt"):
        return
    left_U = dataset.num_items - dataset.train.user_counts - dataset.valid.user_counts
    if int(left_U.min()) < config.candidates:
        raise ValueError(
            f"candidates={config.candidates}: user index {int(left_U.argmin())} has only "
            f"{int(left_U.min())} items left to choose from"
        )


@torch.no_grad()
def _lists(config: RunConfig, model, dataset, on: str) -> Tensor:
    """(U, k) lists, reranked where the configuration says so."""
    if config.reranker == "none":
        return recommend(model, dataset, config.k, on)
    taken_UT = taken_items(dataset, on)
    top_UK = torch.empty_like(taken_UT[:, :1]).repeat(1, config.k)
    for user_B, score_BN in untaken_scores(model, dataset, on):

        def lists(block, user_B=user_B, score_BN=score_BN):
            return _reranked_block(config, score_BN[block], taken_UT, dataset, user_B[block])

        top_UK[user_B] = torch.cat(list(in_blocks(lists, len(user_B), len(user_B))))
    return top_UK


def _reranked_block(config: RunConfig, score_BN, taken_UT, dataset, user_B) -> Tensor:
    """(B, k) lists from the model's scores, -inf at the items taken."""
    temperature = config.temperature
    if config.rerank_perplexity is not None:
        # In blocks that stay in the processor's cache: the scores are read a dozen times.
        blocks = zip(score_BN.split(256), taken_UT[user_B].split(256), strict=True)
        temperature = torch.cat([_softness(*b, config.rerank_perplexity) for b in blocks])
    return _reranked(config, score_BN / temperature, dataset, user_B)


def _softness(score_BN: Tensor, taken_BT: Tensor, perplexity: float) -> Tensor:
    """(B, 1) temperatures at which the laws of the items left have this perplexity."""
    finite_BN = score_BN.masked_fill(score_BN == -torch.inf, 0.0)
    law = ItemDistribution.from_logits(finite_BN, exclude_BT=taken_BT)
    return law.at_perplexity(perplexity).temperature[:, None]


def _reranked(config: RunConfig, score_BN, dataset, user_B) -> Tensor:
    """(B, k) lists from scores in nats, -inf at the items taken."""
    interest_BC, category_NC = dataset.interest_UC[user_B], dataset.category_NC
    if config.tilt_alpha:
        tilt = rerank.tilt(
            score_BN, interest_BC, category_NC, alpha=config.tilt_alpha, temperature=1.0
        )
        if config.reranker == "tilt":
            return tilt.top(config.k)
        score_BN = tilt.score_BN
    score_BM, item_BM = score_BN.topk(config.candidates, dim=1)
    settings = {"k": config.k, "trade_off": config.trade_off}
    if config.reranker == "expected_ndcg":
        law_BM = score_BN.softmax(1).gather(1, item_BM)
        share_B = _share_of_ndcg(dataset, config.k)[user_B]
        return rerank.expected_ndcg(
            share_B[:, None] * law_BM, item_BM, interest_BC, category_NC, **settings
        )
    if config.reranker == "decaying_attention":
        return rerank.decaying_attention(
            score_BM, item_BM, interest_BC, category_NC, decay=config.decay, **settings
        )
    return rerank.steck(score_BM, item_BM, interest_BC, category_NC, **settings)


def _share_of_ndcg(dataset, k: int) -> Tensor:
    """(U,) what Q_u(i) is worth in expected NDCG@k: held-out items, over the DCG of an ideal list.

    How many items a user has held out is not to be looked at: the expectation is that of the
    data set, as many for one training item as validation has.
    """
    rate = len(dataset.valid) / len(dataset.train)
    held_U = (rate * dataset.train.user_counts).clamp(min=1.0)
    ideal_K = (1 / torch.arange(2, k + 2).log2()).cumsum(0).to(held_U.device)
    return held_U / ideal_K[held_U.round().long().clamp(max=k) - 1]


@torch.no_grad()
def _law(config: RunConfig, model, dataset) -> tuple[dict[str, float], Tensor | None]:
    """The figures of ``Record.law``, and Q_u over categories (U, C), None without categories."""
    parts = {"train": dataset.train, "valid": dataset.valid, "test": dataset.test}
    sums = dict.fromkeys([f"nll_{name}" for name in parts] + ["entropy", "category_kl"], 0.0)
    law_UC = []
    user_U = torch.arange(dataset.num_users, device=dataset.train.user.device)

    def said(block):
        law = model.law(Query(user_U[block], dataset.train.history_UT[block]))
        law = law.with_temperature(config.temperature)
        law_BC, found = None, {}
        if dataset.category_NC is not None:
            law_BC = law.mean(dataset.category_NC)
            found["category_kl"] = float(kl(dataset.interest_UC[block], law_BC).sum())
        found["entropy"] = float(law.entropy().sum())
        for name, part in parts.items():
            found[f"nll_{name}"] = -float(law.log_likelihood(part.history_UT[block]).sum())
        return found, law_BC

    for found, law_BC in in_blocks(said, len(user_U), 1024):
        for name, value in found.items():
            sums[name] += value
        if law_BC is not None:
            law_UC.append(law_BC)
    means = {
        name: value / (len(parts[name[4:]]) if name.startswith("nll") else dataset.num_users)
        for name, value in sums.items()
    }
    if not law_UC:
        del means["category_kl"]
    if model.closed_form:
        means = {}
    # A category or an item whose mass underflows leaves no finite figure.
    means = {name: value if math.isfinite(value) else math.nan for name, value in means.items()}
    return means, torch.cat(law_UC) if law_UC else None


def _peak_memory_mib(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
