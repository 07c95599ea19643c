"""python -m benchmarks.limits: what the machine allows, and the share of it that inforec reaches.

Two ceilings are measured first: arithmetic by a product of large matrices, memory bandwidth by
c = a + 2 b on vectors far larger than the caches (two reads and one write are counted). Then each
path on synthetic interactions of about Gowalla's size, with the floating-point operations of its
matrix products and the bytes that it must move at the least; book/costs.md derives both. The share
is the time that the nearer ceiling allows over the time taken. Last, the objective at a million
items in a process of its own, with its peak memory.

Each figure is one record of the study bench-limits; measured again, it is overwritten.

Shape letters: B rows, N items, D embedding size, C categories, V nodes.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from types import SimpleNamespace

import torch
from lightning_fabric import Fabric

from benchmarks.peers.peak import peak_memory_mib
from benchmarks.run import measured, seconds
from benchmarks.synthetic import interactions
from inforec import losses, results
from inforec.batches import PairBatches, UserBatches
from inforec.distribution import ItemDistribution
from inforec.evaluate import best_items, score_blocks
from inforec.graph import normalised_adjacency, propagate
from inforec.models import REGISTRY
from inforec.regularizers import kl
from inforec.train import Objective, _Step, _train_epoch, choose_device

STUDY = "bench-limits"
USERS, ITEMS, DRAWS = 30_000, 40_000, 900_000
ROWS, DIM, CATEGORIES, LAYERS, BATCH = 2048, 64, 32, 3, 2048
MILLION = 1_000_000
FLOAT, INDEX = 4, 4  # bytes of a float32 and of an int32


def ceilings() -> dict[str, float]:
    """gflops: 10^9 operations a second; gbytes: 10^9 bytes a second. The best of several tries."""
    device = choose_device("auto")
    size, length = 3072, 2**26
    a, b, c = (torch.rand(size, size, device=device) for _ in range(3))
    product = min(seconds(lambda: torch.mm(a, b, out=c), 1) for _ in range(5))
    a, b, c = (torch.rand(length, device=device) for _ in range(3))
    triad = min(seconds(lambda: torch.add(a, b, alpha=2.0, out=c), 1) for _ in range(5))
    return {"gflops": 2e-9 * size**3 / product, "gbytes": 3e-9 * FLOAT * length / triad}


def objective_flops(rows: int, items: int, dim: int, categories: int) -> float:
    """Of the matrix products of one blocked objective and its gradient; 0 categories without KL."""
    return rows * items * (8 * dim + 4 * categories)


def objective_bytes(rows: int, items: int, dim: int, categories: int) -> float:
    """Item and category rows read twice, the gradient of the items written once."""
    return FLOAT * items * (3 * dim + 2 * categories) + FLOAT * rows * 3 * dim


def propagation_flops(entries: int, dim: int) -> float:
    """A multiplication and an addition for each entry of the adjacency and coordinate."""
    return 2 * entries * dim


def propagation_bytes(entries: int, nodes: int, dim: int) -> float:
    """The entries and each node's row read once, as if a cache kept all rows; the result."""
    return entries * (FLOAT + INDEX) + 2 * FLOAT * nodes * dim


def adam_bytes(parameters: int) -> float:
    """Weights, gradient and two moments read, all but the gradient written."""
    return 7 * FLOAT * parameters


def objective(rows: int, items: int, dim: int, categories: int, terms: str):
    """A function that takes one step of L_total without the optimiser; terms names what is in."""
    torch.manual_seed(0)
    device = choose_device("auto")
    query_BD = (0.3 * torch.randn(rows, dim, device=device)).requires_grad_()
    item_ND = (0.3 * torch.randn(items, dim, device=device)).requires_grad_()
    category_NC = torch.rand(items, categories, device=device).softmax(1)
    interest_BC = torch.rand(rows, categories, device=device).softmax(1)
    target_B = torch.randint(items, (rows,), device=device)

    def step():
        query_BD.grad = item_ND.grad = None
        law = ItemDistribution.from_embeddings(query_BD, item_ND, temperature=0.5)
        loss = 0.0
        if terms in ("kl", "both"):
            loss = loss + 0.2 * kl(interest_BC, law.mean(category_NC)).mean()
        if terms in ("entropy", "both"):
            loss = loss - 0.01 * law.entropy().mean()
        (loss + losses.softmax(law, target_B)).backward()

    return step


def training(model_name: str, loss: str, train, steps: int = 3, **options):
    """Seconds of one training step, the median of ``steps`` after one; and the model."""
    torch.manual_seed(0)
    model = REGISTRY[model_name](train, REGISTRY[model_name].Config(**options))
    if loss == "softmax":
        batches = UserBatches(train, BATCH, seed=0)
        function = Objective(
            loss, lambda output, batch: losses.softmax(output.distribution, batch.target)
        )
    else:
        batches = PairBatches(train, BATCH, seed=0, negatives=1, popular=False)
        function = Objective(
            loss, lambda output, batch: losses.bpr(output.logits[:, 0], output.logits[:, 1:])
        )
    fabric = Fabric(accelerator=choose_device("auto").type, devices=1)
    model.to(fabric.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=5e-5, fused=True)
    step, optimizer = fabric.setup(_Step(model, function, {}), optimizer)
    model.on_epoch_start(1)
    source = (batch for epoch in itertools.count(1) for batch in batches.epoch(epoch))

    def one():
        _train_epoch(fabric, step, optimizer, [next(source)], 1)

    return seconds(one, steps), SimpleNamespace(model=model, rows=getattr(batches, "rows", BATCH))


def million() -> dict[str, float]:
    """Seconds of one step of the whole objective at a million items, and the process's peak."""
    step = objective(ROWS, MILLION, DIM, CATEGORIES, "both")
    start = time.perf_counter()
    step()
    return {"seconds": time.perf_counter() - start, "peak_memory_mib": peak_memory_mib()}


def in_a_process_of_its_own() -> dict[str, float]:
    """What :func:`million` answers there."""
    command = [sys.executable, "-m", "benchmarks.limits", str(torch.get_num_threads())]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    if len(sys.argv) > 1:
        torch.set_num_threads(int(sys.argv[1]))
        print(json.dumps(million()))
        return
    ceiling = ceilings()
    measured(STUDY, {"path": "ceilings"}, ceiling)
    rows = []

    def note(path: str, took: float, flops: float, moved: float, **settings) -> None:
        arithmetic, memory = flops / (1e9 * ceiling["gflops"]), moved / (1e9 * ceiling["gbytes"])
        share = max(arithmetic, memory) / took
        cost = {"seconds": took, "flops": flops, "bytes": moved, "share": share}
        measured(STUDY, {"path": path, **settings}, cost)
        rows.append([path, took, "arithmetic" if arithmetic > memory else "memory", share])

    items = 100_000
    shape = {"rows": ROWS, "items": items, "dim": DIM}
    for terms in ("none", "kl", "entropy", "both"):
        categories = CATEGORIES if terms in ("kl", "both") else 0
        note(
            f"objective, {terms}",
            seconds(objective(ROWS, items, DIM, CATEGORIES, terms), 2),
            objective_flops(ROWS, items, DIM, categories),
            objective_bytes(ROWS, items, DIM, categories),
            **shape,
        )

    train = interactions(USERS, ITEMS, DRAWS).to(choose_device("auto"))
    nodes, shape = USERS + ITEMS, {"users": USERS, "items": ITEMS, "draws": DRAWS, "dim": DIM}
    adjacency_VV = normalised_adjacency(train)
    entries = adjacency_VV.values().numel()
    node_VD = torch.randn(nodes, DIM, device=train.user.device)
    one = propagation_flops(entries, DIM), propagation_bytes(entries, nodes, DIM)
    note("propagation", seconds(lambda: propagate(adjacency_VV, node_VD)), *one, **shape)

    took, made = training("mf", "softmax", train, dim=DIM)
    note(
        "MF, softmax",
        took,
        objective_flops(made.rows, ITEMS, DIM, 0),
        objective_bytes(made.rows, ITEMS, DIM, 0) + adam_bytes(nodes * DIM),
        **shape,
    )
    for loss in ("bpr", "softmax"):
        took, made = training("lightgcn", loss, train, dim=DIM, layers=LAYERS)
        flops, moved = (2 * LAYERS * each for each in one)
        moved += adam_bytes(nodes * DIM)
        if loss == "softmax":
            flops += objective_flops(made.rows, ITEMS, DIM, 0)
            moved += objective_bytes(made.rows, ITEMS, DIM, 0)
        note(f"LightGCN, {loss}", took, flops, moved, **shape, layers=LAYERS)

    model = made.model.eval()

    def evaluation():
        with torch.no_grad():
            for _, score_BN in score_blocks(model, train.history_UT[:4096], ITEMS):
                best_items(score_BN, 20)

    note(
        "ranking 4096 users",
        seconds(evaluation, 1),
        2 * 4096 * ITEMS * DIM + LAYERS * one[0],
        LAYERS * one[1] + FLOAT * (ITEMS + 4096) * DIM,
        **shape,
    )
    print(
        f"{torch.get_num_threads()} threads, {ceiling['gflops']:.1f} GFLOP/s, "
        f"{ceiling['gbytes']:.1f} GB/s\n"
    )
    print(results.Table(["path", "seconds", "binding ceiling", "share of it"], rows))
    if choose_device("auto").type == "cpu":
        cost = in_a_process_of_its_own()
        settings = {"rows": ROWS, "items": MILLION, "dim": DIM, "categories": CATEGORIES}
        measured(STUDY, {"path": "million", **settings}, cost)
        print(f"\n{MILLION:,} items: {cost['seconds']:.1f} s, {cost['peak_memory_mib']:.0f} MiB")


if __name__ == "__main__":
    main()
