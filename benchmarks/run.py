"""make bench: what a training epoch, an evaluation and a pass over the catalogue cost here.

Every figure is the median of several repetitions after one that is not counted. Ratios within a run
mean more than seconds, which differ from machine to machine.
"""

from __future__ import annotations

import statistics
import time

import torch

from inforec import data, results
from inforec.evaluate import evaluate
from inforec.experiment import RunConfig, run
from inforec.models import REGISTRY
from inforec.streaming import catalogue_pass, dense_pass
from inforec.train import choose_device

REPEATS = 5


def seconds(function, repeats: int = REPEATS) -> float:
    """Median seconds of ``function()``, after one call that is not counted."""
    device = choose_device("auto")
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def measured(
    study: str, settings: dict, cost: dict[str, float], data: str = "synthetic"
) -> results.Record:
    """Write figures as a record of ``study``, over ``data``; measured again, it is overwritten."""
    config = {"model": study, **settings, "threads": torch.get_num_threads()}
    record = results.Record(
        config=config,
        run_id=results.run_id(config),
        study=study,
        valid={},
        test={},
        history=[],
        cost=cost,
        provenance=results.provenance(device=choose_device("auto"), data=data, seed=0),
    )
    results.write(record, results.root() / study)
    return record


def epochs() -> results.Table:
    """Seconds an epoch of training on MovieLens-100K, by model, loss and terms."""
    rows = []
    for model in ("mf", "lightgcn"):
        for settings in (
            {"loss": "bpr"},
            {"loss": "sampled_softmax"},
            {"loss": "softmax"},
            {"loss": "softmax", "alpha": 1.0},
            {"loss": "softmax", "alpha": 1.0, "beta": 0.1},
        ):
            config = RunConfig(model=model, epochs=REPEATS + 1, validate_every=100, **settings)
            history = run(config, progress=False).history
            typical = statistics.median(entry["seconds"] for entry in history[1:])
            terms = ", ".join(f"{name} {value:g}" for name, value in list(settings.items())[1:])
            rows.append([model, settings["loss"], terms, typical])
    return results.Table(["model", "loss", "terms", "seconds an epoch"], rows)


def evaluation() -> results.Table:
    """Seconds of a full-ranking evaluation of all users on MovieLens-100K."""
    dataset = data.load("ml-100k").to(choose_device("auto"))
    rows = []
    for name in ("popularity", "mf", "lightgcn"):
        model = REGISTRY[name](dataset.train).to(dataset.train.user.device)
        rows.append([name, seconds(lambda model=model: evaluate(model, dataset))])
    return results.Table(["model", "seconds an evaluation"], rows)


def catalogue() -> results.Table:
    """The streaming pass against the dense one, forward and backward, as the catalogue grows."""
    device = choose_device("auto")
    rows = []
    for num_items in (1_000, 10_000, 50_000):
        query_BD = torch.randn(256, 64, device=device, requires_grad=True)
        item_ND = torch.randn(num_items, 64, device=device, requires_grad=True)
        value_NC = torch.rand(num_items, 18, device=device)

        def step(function, query_BD=query_BD, item_ND=item_ND, value_NC=value_NC):
            lse_B, entropy_B, mean_BC = function(query_BD, item_ND, value_NC)
            (lse_B.sum() + entropy_B.sum() + mean_BC.square().sum()).backward()

        stream = seconds(lambda step=step: step(catalogue_pass))
        dense = seconds(lambda step=step: step(dense_pass))
        rows.append([f"{num_items:,}", stream, dense, dense / stream])
    return results.Table(["items", "streaming, s", "dense, s", "dense / streaming"], rows)


def main() -> None:
    print(f"{torch.get_num_threads()} threads, device {choose_device('auto')}")
    for measure in (epochs, evaluation, catalogue):
        print(f"\n{measure.__doc__}\n")
        print(measure())


if __name__ == "__main__":
    main()
