"""What the grids share: runs in parallel processes, and the search for settings.

Runs whose records exist are not repeated, so every grid may be stopped and started again.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context, parent_process

import optuna
import torch
from als import AlsConfig, run_als
from tqdm import tqdm

from inforec import results
from inforec.experiment import RunConfig, run


@dataclass(frozen=True)
class Method:
    """One row of a table: what is fixed, and what is searched.

    Args:
        fixed: fields of RunConfig; a name with a dot is one of the model's own options.
        space: for each searched name a list of choices, or (low, high) of a number that is drawn
            on a logarithmic scale.
    """

    fixed: Mapping[str, object]
    space: Mapping[str, list | tuple[float, float]] = field(default_factory=dict)

    def config(self, drawn: Mapping[str, object] | None = None) -> RunConfig:
        """The configuration with these values of the searched names."""
        settings = {**self.fixed, **(drawn or {})}
        options = {n.split(".")[1]: v for n, v in settings.items() if n.startswith("options.")}
        plain = {n: v for n, v in settings.items() if not n.startswith("options.")}
        return RunConfig(**plain, options=options)


def search(method: Method, study: str, budget: int, seed: int = 0) -> list[RunConfig]:
    """Try ``budget`` settings, each proposed in the light of the earlier ones' validation ndcg@20.

    The proposals are those of Optuna's tree-structured Parzen estimator (Bergstra et al. 2011) and
    depend on the seed and the records only: a search that was stopped proposes the same settings
    again, finds their records, and goes on from there.

    Returns:
        The settings tried, in order.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=max(3, budget // 3))
    trials = optuna.create_study(direction="maximize", sampler=sampler)
    tried = []
    for _ in range(budget if method.space else 1):
        trial = trials.ask()
        config = method.config({name: _draw(trial, name, s) for name, s in method.space.items()})
        record = run(config, results=results.root() / study, progress=False)
        trials.tell(trial, record.valid["ndcg@20"])
        tried.append(config)
    return tried


def best(configs: Iterable[RunConfig], study: str, metric: str = "ndcg@20") -> RunConfig:
    """The setting with the best validation metric among those whose records are there."""

    def value(config):
        record = results.find(config.to_dict(), results.root() / study)
        return -math.inf if record is None else record.valid[metric]

    return max(configs, key=value)


def _draw(trial: optuna.Trial, name: str, space: list | tuple[float, float]):
    if isinstance(space, list):
        return trial.suggest_categorical(name, space)
    value = trial.suggest_float(name, *space, log=True)
    return float(f"{value:.3g}")  # three digits are enough, and can be read


def run_all(name: str, configs: Iterable, study: str, jobs: int, *, per_user: bool = False) -> None:
    """Run configurations in ``jobs`` processes with one thread each."""
    in_parallel(name, _one, [(config, study, per_user) for config in configs], jobs)


def in_parallel(name: str, function: Callable, arguments: list[tuple], jobs: int) -> list:
    """``function(*arguments)`` for each, in processes with one thread each; the answers in order.

    A failure is raised once the others have ended.
    """
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_single) as pool:
        futures = [pool.submit(function, *given) for given in arguments]
        for _ in tqdm(as_completed(futures), total=len(futures), desc=name):
            pass
        return [future.result() for future in futures]


def _single() -> None:
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed parent cannot end its workers: without this they would wait for ever."""
    parent_process().join()
    os._exit(1)


def _one(config, study: str, per_user: bool) -> None:
    folder = results.root() / study
    if isinstance(config, AlsConfig):
        run_als(config, results=folder)
    else:
        run(config, results=folder, per_user=per_user, progress=False)
