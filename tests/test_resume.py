"""A run that was stopped and started again ends in the numbers of the unbroken run."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from inforec import losses
from inforec.batches import PairBatches
from inforec.evaluate import evaluate
from inforec.models import REGISTRY
from inforec.results import save_tensors
from inforec.train import FitConfig, Objective, fit

BPR = Objective("bpr", lambda output, batch: losses.bpr(output.logits[:, 0], output.logits[:, 1:]))


def train(data, checkpoint, callbacks=(), key="one run", patience=5):
    """12 epochs, validated every second; (history without seconds, weights)."""
    torch.manual_seed(0)
    model = REGISTRY["lightgcn"](data.train, REGISTRY["lightgcn"].Config(dim=8, layers=1))
    history = fit(
        model,
        PairBatches(data.train, 32, 0, negatives=1, popular=False),
        BPR,
        FitConfig(
            epochs=12,
            learning_rate=0.05,
            weight_decay=1e-4,
            validate_every=2,
            patience=patience,
            monitor="ndcg@5",
            device="cpu",
            progress=False,
            checkpoint=checkpoint,
            checkpoint_key=key,
        ),
        validate=lambda model: evaluate(model, data, (5,), "valid")[0],
        callbacks=callbacks,
    )
    history = [{k: v for k, v in entry.items() if k != "seconds"} for entry in history]
    return history, model.state_dict()


def assert_same(first, second):
    assert first[0] == second[0]
    assert all(torch.equal(first[1][name], second[1][name]) for name in second[1])


class StopError(Exception):
    pass


def stop_after(epoch):
    def callback(entry):
        if entry["epoch"] == epoch:
            raise StopError

    return callback


@pytest.mark.parametrize("epoch", [1, 2, 5, 6, 11])
def test_a_stopped_run_continues_to_the_same_numbers(tiny, tmp_path, epoch):
    unbroken = train(tiny, None)
    checkpoint = tmp_path / "study" / "run.ckpt"
    with pytest.raises(StopError):
        train(tiny, checkpoint, [stop_after(epoch)])
    assert checkpoint.exists() == (epoch >= 2)  # saved where it is validated
    seen = []
    resumed = train(tiny, checkpoint, [lambda entry: seen.append(entry["epoch"])])
    assert_same(resumed, unbroken)
    assert seen == list(range(epoch // 2 * 2 + 1, 13))  # it did continue
    # The file stays until the model is kept elsewhere: the same call trains no more.
    assert_same(train(tiny, checkpoint, [stop_after(12)]), unbroken)
    assert list(checkpoint.parent.iterdir()) == [checkpoint]


def test_a_run_stopped_twice_continues_to_the_same_numbers(tiny, tmp_path):
    unbroken = train(tiny, None)
    for epoch in (3, 8):
        with pytest.raises(StopError):
            train(tiny, tmp_path / "run.ckpt", [stop_after(epoch)])
    assert_same(train(tiny, tmp_path / "run.ckpt"), unbroken)


def test_patience_is_remembered(tiny, tmp_path):
    unbroken = train(tiny, None, patience=1)
    last = unbroken[0][-1]["epoch"]
    assert 2 < last < 12, "this data set must stop early for the test to mean anything"
    with pytest.raises(StopError):
        train(tiny, tmp_path / "run.ckpt", [stop_after(last - 1)], patience=1)
    assert_same(train(tiny, tmp_path / "run.ckpt", patience=1), unbroken)


def test_the_best_weights_are_remembered(tiny, tmp_path):
    """The best epoch may lie before the stop: stop after every one of them."""
    unbroken = train(tiny, None)
    value = {e["epoch"]: e["valid"]["ndcg@5"] for e in unbroken[0] if "valid" in e}
    best = max(value, key=value.get)
    assert best < 12, "this data set must have its best epoch before the last"
    with pytest.raises(StopError):
        train(tiny, tmp_path / "run.ckpt", [stop_after(best + 1)])
    assert_same(train(tiny, tmp_path / "run.ckpt"), unbroken)


def test_the_checkpoint_of_another_run_is_not_continued(tiny, tmp_path):
    checkpoint, seen = tmp_path / "run.ckpt", []
    with pytest.raises(StopError):
        train(tiny, checkpoint, [stop_after(6)], key="another run")
    run = train(tiny, checkpoint, [lambda entry: seen.append(entry["epoch"])])
    assert seen == list(range(1, 13))
    assert_same(run, train(tiny, None))


@pytest.mark.parametrize("keep", [0, 10, 2000])
def test_a_checkpoint_cut_short_is_named(tiny, tmp_path, keep):
    checkpoint = tmp_path / "run.ckpt"
    with pytest.raises(StopError):
        train(tiny, checkpoint, [stop_after(6)])
    checkpoint.write_bytes(checkpoint.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"run\.ckpt is not a readable checkpoint: delete it"):
        train(tiny, checkpoint)


def test_a_checkpoint_with_a_flipped_bit_is_named(tiny, tmp_path):
    checkpoint = tmp_path / "run.ckpt"
    with pytest.raises(StopError):
        train(tiny, checkpoint, [stop_after(6)])
    raw = checkpoint.read_bytes()
    middle = len(raw) // 2  # a weight: torch.load would not notice
    checkpoint.write_bytes(raw[:middle] + bytes([raw[middle] ^ 16]) + raw[middle + 1 :])
    with pytest.raises(ValueError, match=r"run\.ckpt is not a readable checkpoint: delete it"):
        train(tiny, checkpoint)


def test_a_checkpoint_of_other_parameters_is_named(tiny, tmp_path):
    checkpoint = tmp_path / "run.ckpt"
    state = {"key": "one run", "model": {"weight": torch.zeros(3)}}
    save_tensors(state, checkpoint)
    with pytest.raises(ValueError, match=r"run\.ckpt is of another version .* delete it"):
        train(tiny, checkpoint)


def test_a_failure_while_saving_leaves_the_last_whole_checkpoint(tiny, tmp_path, monkeypatch):
    checkpoint = tmp_path / "run.ckpt"
    with pytest.raises(StopError):
        train(tiny, checkpoint, [stop_after(2)])
    whole = checkpoint.read_bytes()

    def half(state, path):
        path.write(b"half")
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", half)
        with pytest.raises(OSError, match="disk full"):
            train(tiny, checkpoint)
    assert [path.name for path in tmp_path.iterdir()] == ["run.ckpt"]
    assert checkpoint.read_bytes() == whole
    assert_same(train(tiny, checkpoint), train(tiny, None))


KILLED = """
import sys, time
from inforec.experiment import RunConfig, run

def callback(entry):
    print(entry["epoch"], flush=True)
    if entry["epoch"] == 5:
        time.sleep(120)

config = RunConfig(dataset=sys.argv[1], model="mf", options={"dim": 4}, epochs=12, validate_every=2,
                   alpha=0.1, beta=0.01, k=5, device="cpu")
run(config, results=sys.argv[2], callbacks=[callback], progress=False)
"""


def test_kill_minus_nine(tiny_folder, tmp_path):
    """The process dies in the middle; the same call then gives the unbroken run's record."""
    from inforec.experiment import RunConfig, run

    study = tmp_path / "study"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tiny_folder), str(study)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    try:
        while process.stdout.readline().strip() != "5":
            assert process.poll() is None, "the run ended before it could be killed"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    assert [path.suffix for path in study.iterdir()] == [".ckpt"]

    config = RunConfig(
        dataset=str(tiny_folder),
        model="mf",
        options={"dim": 4},
        epochs=12,
        validate_every=2,
        alpha=0.1,
        beta=0.01,
        k=5,
        device="cpu",
    )
    seen = []
    start = time.monotonic()
    resumed = run(
        config,
        results=study,
        callbacks=[lambda entry: seen.append(entry["epoch"])],
        progress=False,
    )
    assert time.monotonic() - start < 60
    unbroken = run(config, progress=False)
    assert seen == list(range(5, 13))
    assert (resumed.test, resumed.valid) == (unbroken.test, unbroken.valid)
    for mine, other in zip(resumed.history, unbroken.history, strict=True):
        assert {**mine, "seconds": 0} == {**other, "seconds": 0}
    assert (resumed.top == unbroken.top).all()
    assert sorted(path.suffix for path in study.iterdir()) == [".json", ".npz", ".weights"]
