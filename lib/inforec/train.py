"""The only training loop. It names no model and never sees test data.

Started by torchrun, several processes share each batch: every process draws the whole batch from
the same seed and takes every W-th of its rows, W their number. A term that is a mean over rows (or
over interactions) is weighted by W times the share of the rows (interactions) that fell to the
process, so that the mean of the gradients over the processes is the gradient of the one-process
loss. Terms that compare rows, and models that draw at random for a row, see the whole batch in
every process (``Recommender.row_wise``).
"""

from __future__ import annotations

import copy
import inspect
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from lightning_fabric.strategies import DDPStrategy
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from inforec.checks import require_choice, require_number
from inforec.models.base import Recommender
from inforec.results import load_tensors, save_tensors
from inforec.types import PAD, Batch, Output

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("32-true", "64-true", "16-mixed", "bf16-mixed")


@dataclass(frozen=True)
class FitConfig:
    """How to train.

    Args:
        epochs: upper bound on passes over the training data.
        learning_rate: of Adam.
        weight_decay: L2 penalty on all parameters (Adam's own, added to the gradient).
        validate_every: epochs between validations.
        patience: validations without a better value of ``monitor`` before training stops.
        monitor: the validation metric that decides.
        maximise: whether more of it is better.
        seed: with the epoch, fixes every random draw of the epoch.
        device: "auto" (CUDA where there is one), "cpu" or "cuda".
        precision: one of PRECISIONS.
        checkpoint: file that holds the state between validations, or None. A run that finds its own
            checkpoint continues from it and ends in the numbers of the unbroken run. The file stays
            when training ends, so that nothing is lost before the model is kept elsewhere.
        checkpoint_key: names the run; a checkpoint with another key is not continued.
        progress: show a progress bar on stderr.

    Raises:
        ValueError: for a value out of range.
    """

    epochs: int = 100
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    validate_every: int = 5
    patience: int = 5
    monitor: str = "ndcg@20"
    maximise: bool = True
    seed: int = 0
    device: str = "auto"
    precision: str = "32-true"
    checkpoint: Path | None = None
    checkpoint_key: str = ""
    progress: bool = True

    def __post_init__(self):
        require_number("epochs", self.epochs, at_least=0, integer=True)
        require_number("learning_rate", self.learning_rate, above=0)
        require_number("weight_decay", self.weight_decay, at_least=0)
        require_number("validate_every", self.validate_every, at_least=1, integer=True)
        require_number("patience", self.patience, at_least=1, integer=True)
        require_number("seed", self.seed, at_least=0, at_most=2**32 - 1, integer=True)
        require_choice("device", self.device, DEVICES)
        require_choice("precision", self.precision, PRECISIONS)


def processes() -> tuple[int, int]:
    """(rank, W): which of the W processes that torchrun started this one is; (0, 1) without it."""
    parallel = torch.distributed.is_available() and torch.distributed.is_torchelastic_launched()
    if not parallel:
        return 0, 1
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def choose_device(name: str) -> torch.device:
    """The device behind "auto", "cpu" or "cuda"; of several processes each has its own GPU.

    Raises:
        ValueError: for another name, or for "cuda" where there is none.
    """
    require_choice("device", name, DEVICES)
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device='cuda': expected a CUDA GPU, and PyTorch finds none here")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", *([int(os.environ["LOCAL_RANK"])] if processes()[1] > 1 else []))


class Batches(Protocol):
    """A source of batches; epoch(n) depends on n and on nothing that happened before."""

    def epoch(self, epoch: int) -> Iterator[Batch]: ...


@dataclass(frozen=True)
class Objective:
    """The ranking loss by name: ``function(output, batch)`` is a scalar, nats."""

    name: str
    function: Callable[[Output, Batch], Tensor]


@dataclass(frozen=True)
class Regularizer:
    """One more term: ``weight`` times the mean of ``function(output, batch)``, (B,) nats."""

    weight: float
    function: Callable[[Output, Batch], Tensor]


class NonFiniteLossError(FloatingPointError):
    """The loss was not finite; the optimiser has not moved."""


def fit(
    model: Recommender,
    batches: Batches,
    objective: Objective,
    config: FitConfig,
    *,
    regularizers: Mapping[str, Regularizer] | None = None,
    validate: Callable[[Recommender], dict[str, float]] | None = None,
    callbacks: Sequence[Callable[[dict], None]] = (),
) -> list[dict]:
    """Train ``model`` in place and leave it with the best validated weights.

    Of several processes (torchrun) every one calls it with the same arguments and ends with the
    same weights. The first alone writes the checkpoint, which all must be able to read, shows
    progress and calls the callbacks; its validation counts.

    Args:
        model: moved to the device; a model without parameters is only started and validated.
        batches: where the training rows come from.
        objective: the ranking loss.
        config: how to train.
        regularizers: further terms by name; the model's own ``aux`` terms are added as they are.
        validate: metrics of the model on validation data; without it the last weights are kept.
        callbacks: called with each epoch's entry of the history.

    Returns:
        The history: one dict an epoch with ``epoch``, ``loss``, ``terms`` (unweighted means, nats),
        ``seconds`` (training only) and, where validated, ``valid``.

    Raises:
        NonFiniteLossError: before the step, naming every term and its value.
        ValueError: naming the checkpoint, if it cannot be read, or only by some processes.
    """
    fabric = _fabric(config)
    if not fabric.is_global_zero:
        callbacks, config = (), replace(config, progress=False)
    model.to(fabric.device)
    torch.manual_seed(config.seed)
    model.on_fit_start()
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        entry = {"epoch": 0, "loss": None, "terms": {}, "seconds": 0.0}
        if validate is not None:
            model.eval()
            entry["valid"] = fabric.broadcast(validate(model))
        for callback in callbacks:
            callback(entry)
        return [entry]

    optimizer = torch.optim.Adam(
        parameters, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    step, optimizer = fabric.setup(_Step(model, objective, regularizers or {}), optimizer)
    state = _State(model, optimizer, config)
    state.resume()
    if fabric.broadcast(state.epoch) != state.epoch:
        raise ValueError(
            f"checkpoint={str(config.checkpoint)!r}: expected a folder that all processes share, "
            f"but process {fabric.global_rank} reads another epoch there than the first"
        )
    if not fabric.is_global_zero:  # one process writes
        state.config = replace(config, checkpoint=None)

    bar = tqdm(
        total=config.epochs,
        initial=state.epoch,
        desc="training",
        unit="epoch",
        disable=not config.progress,
    )
    with bar:
        while state.epoch < config.epochs and state.stale < config.patience:
            epoch = state.epoch + 1
            torch.manual_seed(config.seed * 1_000_003 + epoch)
            model.train()
            model.on_epoch_start(epoch)
            entry = _train_epoch(fabric, step, optimizer, batches.epoch(epoch), epoch)
            last = epoch == config.epochs
            if validate is not None and (epoch % config.validate_every == 0 or last):
                model.eval()
                entry["valid"] = fabric.broadcast(validate(model))
            state.record(entry)
            for callback in callbacks:
                callback(entry)
            shown = {"loss": f"{entry['loss']:.4f}"}
            if math.isfinite(state.best_value):
                shown[f"best {config.monitor}"] = f"{state.best_value:.4f}"
            bar.set_postfix(shown)
            bar.update()
    state.finish()
    return state.history


def _fabric(config: FitConfig) -> Fabric:
    """One device, or that of this process among those that torchrun started."""
    kind, (_, count) = choose_device(config.device).type, processes()
    if count == 1:  # also inside a job of a cluster, whose variables Fabric would read
        plugin = LightningEnvironment()
        return Fabric(accelerator=kind, devices=1, precision=config.precision, plugins=plugin)
    on_node = int(os.environ["LOCAL_WORLD_SIZE"])
    # All processes start from one seed and draw alike: only gradients have to be sent.
    known = inspect.signature(DistributedDataParallel).parameters
    buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    strategy = DDPStrategy(init_sync=False, gradient_as_bucket_view=True, **{buffers: False})
    fabric = Fabric(
        accelerator=kind,
        devices=on_node,
        num_nodes=count // on_node,
        strategy=strategy,
        precision=config.precision,
        plugins=TorchElasticEnvironment(),
    )
    fabric.launch()
    return fabric


class _Step(nn.Module):
    """The whole objective as one module: forward(batch) -> loss and its terms, unweighted.

    Of several processes each returns its part; their means are the loss and the terms.
    """

    def __init__(self, model: Recommender, objective: Objective, regularizers):
        super().__init__()
        self.model, self.objective, self.regularizers = model, objective, regularizers
        self.rank, self.count = processes()

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        output, batch, of_rows, of_targets = self._own_part(batch)
        terms, loss = {}, 0.0
        # The regularisers go first: on the streaming path their one pass serves the loss as well.
        for name, regularizer in self.regularizers.items():
            terms[name] = of_rows * regularizer.function(output, batch).mean()
            loss = loss + regularizer.weight * terms[name]
        terms |= output.aux
        terms[self.objective.name] = of_targets * self.objective.function(output, batch)
        return loss + sum(output.aux.values()) + terms[self.objective.name], terms

    def _own_part(self, batch: Batch) -> tuple[Output, Batch, float, float | Tensor]:
        """Output and batch of this process's rows; the weights of means over rows and targets."""
        if self.count == 1:
            return self.model(batch), batch, 1.0, 1.0
        own = slice(self.rank, None, self.count)
        rows = len(batch.user[own])
        if not rows:  # fewer rows than processes: any row, with the weight 0
            own = slice(1)
        part = batch.rows(own)
        output = self.model(part) if self.model.row_wise else self.model(batch).rows(own)
        of_rows = self.count * rows / len(batch.user)
        if not rows:
            return output, part, 0.0, 0.0
        share = (part.target != PAD).sum().double() / (batch.target != PAD).sum()
        return output, part, of_rows, self.count * share


def _train_epoch(fabric, step, optimizer, batches, epoch: int) -> dict:
    """One pass over the batches; returns the epoch's entry of the history."""
    start = time.perf_counter()
    sums: dict[str, Tensor] = {}
    for number, batch in enumerate(batches, start=1):
        loss, terms = step(batch)
        whole, terms = _means(fabric, loss, terms)
        if not torch.isfinite(whole):
            values = ", ".join(f"{name} = {value.item():g}" for name, value in terms.items())
            raise NonFiniteLossError(
                f"loss = {whole.item():g} in epoch {epoch}, step {number}: {values}. The weights "
                "are those before this step. A smaller learning rate, alpha or beta, or a higher "
                "temperature may help."
            )
        optimizer.zero_grad()
        fabric.backward(loss)
        optimizer.step()
        for name, value in {"loss": whole, **terms}.items():
            sums[name] = sums.get(name, 0.0) + value.detach()
    means = {name: float(value) / number for name, value in sums.items()}
    return {
        "epoch": epoch,
        "loss": means.pop("loss"),
        "terms": means,
        "seconds": time.perf_counter() - start,
    }


def _means(fabric, loss: Tensor, terms: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and terms of the whole batch, from the parts of the processes."""
    if fabric.world_size == 1:
        return loss, terms
    parts = torch.stack([value.detach().double() for value in (loss, *terms.values())])
    whole, *values = fabric.all_reduce(parts, reduce_op="mean")
    return whole, dict(zip(terms, values, strict=True))


class _State:
    """What a run must remember between epochs, and how it is saved and restored."""

    def __init__(self, model: Recommender, optimizer, config: FitConfig):
        self.model, self.optimizer, self.config = model, optimizer, config
        self.epoch = 0
        self.stale = 0
        self.best_value = -math.inf if config.maximise else math.inf
        self.best_weights: dict | None = None
        self.history: list[dict] = []

    def record(self, entry: dict) -> None:
        self.epoch = entry["epoch"]
        self.history.append(entry)
        if "valid" not in entry:
            return
        value = entry["valid"][self.config.monitor]
        better = value > self.best_value if self.config.maximise else value < self.best_value
        if better:
            self.best_value, self.stale = value, 0
            self.best_weights = copy.deepcopy(self.model.state_dict())
        else:
            self.stale += 1
        self._save()

    def finish(self) -> None:
        if self.best_weights is not None:
            self.model.load_state_dict(self.best_weights)
        self.model.eval()

    def resume(self) -> None:
        path = self.config.checkpoint
        if path is None:
            return
        try:
            saved = load_tensors(path, next(self.model.parameters()).device)
        except FileNotFoundError:  # none yet, or a second process has just finished with it
            return
        if saved.get("key") != self.config.checkpoint_key:
            return
        try:
            self.model.load_state_dict(saved["model"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.best_weights = saved["best_weights"]
            self.epoch, self.stale = saved["epoch"], saved["stale"]
            self.best_value, self.history = saved["best_value"], saved["history"]
        except (KeyError, RuntimeError, ValueError) as error:
            raise ValueError(
                f"{path} is of another version of this code: delete it to train from the start"
            ) from error

    def _save(self) -> None:
        path = self.config.checkpoint
        if path is None:
            return
        state = {
            "key": self.config.checkpoint_key,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "best_weights": self.best_weights,
            "epoch": self.epoch,
            "stale": self.stale,
            "best_value": self.best_value,
            "history": self.history,
        }
        save_tensors(state, path)
