"""The same numbers on a CUDA device as on the CPU; skipped where there is none."""

import pytest
import torch

from inforec.experiment import RunConfig, run
from inforec.streaming import catalogue_pass
from test_determinism import MODELS, elsewhere, write_labelled

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def streamed(device, dtype):
    torch.manual_seed(0)
    query_BD, item_ND = torch.randn(50, 16, dtype=dtype), torch.randn(3000, 16, dtype=dtype)
    value_NC, exclude_BT = torch.rand(3000, 4, dtype=dtype), torch.randint(-1, 3000, (50, 20))
    inputs = [t.to(device).requires_grad_() for t in (query_BD, item_ND, value_NC)]
    outputs = catalogue_pass(*inputs, exclude_BT.to(device), block_elements=10_000)
    gradients = torch.autograd.grad(sum(out.square().sum() for out in outputs), inputs)
    return [tensor.cpu() for tensor in (*outputs, *gradients)]


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-10), (torch.float32, 1e-3)])
def test_streaming_agrees_with_the_cpu(dtype, tolerance):
    for there, here in zip(streamed("cuda", dtype), streamed("cpu", dtype), strict=True):
        torch.testing.assert_close(there, here, rtol=tolerance, atol=tolerance)


def test_half_precision_keeps_the_entropy():
    """Under autocast the pass itself stays in float32: half precision would lose the entropy."""
    torch.manual_seed(0)
    query_BD, item_ND = torch.randn(20, 16).cuda() * 5, torch.randn(3000, 16).cuda()
    wanted = catalogue_pass(query_BD, item_ND)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        ours = catalogue_pass(query_BD, item_ND)
    for mine, reference in zip(ours[:2], wanted[:2], strict=True):
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine, reference, rtol=1e-4, atol=1e-4)


def test_the_same_seed_gives_the_same_bits(tiny_folder, tmp_path):
    """With PyTorch's deterministic algorithms; in processes of their own, as cuBLAS asks."""
    labelled = write_labelled(tmp_path / "labelled")
    fixed = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    first, second = (elsewhere(tiny_folder, labelled, "cuda", **fixed) for _ in range(2))
    assert first == second and len(set(first.values())) == len(MODELS)


@pytest.mark.parametrize("model", ["mf", "lightgcn", "ease", "itemknn", "popularity"])
def test_a_run_learns_alike_on_both_devices(tiny_folder, model):
    """Batches and weights come from other generators there, so only the level is compared."""
    learned = model in ("mf", "lightgcn")
    settings = RunConfig(
        dataset=str(tiny_folder),
        model=model,
        alpha=0.1 if learned else 0.0,
        beta=0.01 if learned else 0.0,
        epochs=20,
        k=5,
    )
    records = [
        run(RunConfig(**{**settings.to_dict(), "device": d}), progress=False)
        for d in ("cpu", "cuda")
    ]
    here, there = (record.test["ndcg@5"] for record in records)
    assert there == pytest.approx(here, abs=0.15 if learned else 1e-6)
    assert records[1].cost["peak_memory_mib"] > 0
    if learned:
        losses = [record.history[-1]["loss"] for record in records]
        assert losses[1] == pytest.approx(losses[0], rel=0.2)
