"""The counts and the generator behind the benchmarks.

Shape letters: B rows, N items.
"""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from benchmarks import growth, limits, synthetic
from benchmarks.peers import peak
from torch.utils.flop_counter import FlopCounterMode

from inforec import results


@pytest.mark.parametrize("terms", ["none", "kl", "entropy", "both"])
def test_operations_of_the_objective_are_those_that_are_run(terms, monkeypatch):
    monkeypatch.setattr("inforec.streaming.catalogue_pass.__kwdefaults__", {"block_elements": 64})
    rows, items, dim, categories = 8, 50, 6, 5
    step = limits.objective(rows, items, dim, categories, terms)

    def added(_, left, right, **settings):  # the counter does not know the in-place form
        return 2 * left[0] * left[1] * right[1]

    known = {torch.ops.aten.addmm_: added}
    with FlopCounterMode(display=False, custom_mapping=known) as counter:
        step()
    counted = categories if terms in ("kl", "both") else 0
    assert counter.get_total_flops() == limits.objective_flops(rows, items, dim, counted)


def test_popularity_is_a_falling_law_and_the_interactions_follow_it():
    law_N = synthetic.popularity(1000)
    assert float(law_N.sum()) == pytest.approx(1.0) and (law_N.diff() < 0).all()
    train = synthetic.interactions(5_000, 1_000, 50_000)
    pair = train.user * 1_000 + train.item
    assert len(pair.unique()) == len(train) <= 50_000
    assert (train.num_users, train.num_items) == (5_000, 1_000)
    share_N = train.item_counts.sort(descending=True).values / len(train)
    assert float(share_N[:100].sum()) == pytest.approx(float(law_N[:100].sum()), abs=0.03)
    again = synthetic.interactions(5_000, 1_000, 50_000)
    assert torch.equal(again.user, train.user) and torch.equal(again.item, train.item)


def test_growth_writes_one_record_a_sweep_and_overwrites_it(tmp_path, monkeypatch):
    monkeypatch.setenv("INFOREC_RESULTS", str(tmp_path))
    monkeypatch.setattr(growth, "OBJECTIVE", {"items": (50, 100), "dim": (4,)})
    monkeypatch.setattr(growth, "LIGHTGCN", {"users": (40, 80)})
    monkeypatch.setattr(growth, "RANKING", {"items": (50,)})
    monkeypatch.setattr(growth, "BASE", {"rows": 8, "items": 60, "dim": 4, "categories": 3})
    graph = {"users": 50, "items": 60, "interactions": 400, "dim": 4, "layers": 2}
    monkeypatch.setattr(growth, "GRAPH", graph)
    for _ in range(2):
        growth.main()
        records = results.load(tmp_path / "bench-growth")
        sweeps = {(r.config["path"], r.config["varies"]): set(r.cost) for r in records}
        assert len(records) == 4 and sweeps["objective", "items"] == {"50", "100"}
        assert all(seconds > 0 for record in records for seconds in record.cost.values())


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read on Linux")
def test_the_peak_of_a_worker_is_not_that_of_the_process_that_started_it():
    held = torch.ones(2**26)  # 256 MiB
    code = "from peak import peak_memory_mib; print(peak_memory_mib())"
    folder = Path(peak.__file__).parent
    started = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    assert 0 < float(started.stdout) < 128 < 256 < peak.peak_memory_mib()
    assert held[0] == 1
