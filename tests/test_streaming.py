"""The streaming pass against the dense one: equal in value and gradient, and never (B, N) large.

Shape letters: B rows, N items, D embedding size, C value columns, T excluded items a row.
"""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from inforec.streaming import (
    catalogue_pass,
    dense_pass,
    excluded_mask,
    merged_shards,
    softplus_sum,
)

SIZES = [(1, 1, 1, 1), (1, 7, 3, 2), (3, 11, 2, 4), (6, 40, 5, 1)]  # B, N, D, C


def inputs(sizes, scale=1.0, dtype=torch.float64):
    B, N, D, C = sizes
    torch.manual_seed(B * 1000 + N)
    query_BD = (torch.randn(B, D, dtype=dtype) * scale).requires_grad_()
    item_ND = torch.randn(N, D, dtype=dtype, requires_grad=True)
    value_NC = torch.rand(N, C, dtype=dtype, requires_grad=True)
    return query_BD, item_ND, value_NC


def exclusions(kind, B, N):
    """(B, T) items to leave out, or None."""
    if kind == "none":
        return None
    if kind == "padding only":
        return torch.full((B, 2), -1)
    if kind == "first block":  # with a block of at most N // 2 items, whole blocks are excluded
        return torch.arange(N // 2).expand(B, -1).clone()
    if kind == "last block":
        return torch.arange(N - N // 2, N).expand(B, -1).clone()
    assert kind == "duplicates"
    rows = [[b % N, -1, b % N, (b + 3) % N, -1] if N > 4 else [-1] * 5 for b in range(B)]
    return torch.tensor(rows)


def gradients(function, query_BD, item_ND, value_NC, exclude_BT, weights):
    outputs = function(query_BD, item_ND, value_NC, exclude_BT)
    total = sum((out * w).sum() for out, w in zip(outputs, weights, strict=True) if w is not None)
    return outputs, torch.autograd.grad(
        total, (query_BD, item_ND, value_NC), allow_unused=True, materialize_grads=True
    )


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize(
    "kind", ["none", "padding only", "first block", "last block", "duplicates"]
)
@pytest.mark.parametrize("items_a_block", [1, 3, 1000])
def test_equals_dense_in_value_and_gradient(sizes, kind, items_a_block):
    B, N, _, C = sizes
    tensors = inputs(sizes)
    exclude_BT = exclusions(kind, B, N)
    weights = [torch.randn(B).double(), torch.randn(B).double(), torch.randn(B, C).double()]

    def streamed(*arguments):
        return catalogue_pass(*arguments, block_elements=items_a_block * B)

    ours, ours_grad = gradients(streamed, *tensors, exclude_BT, weights)
    dense, dense_grad = gradients(dense_pass, *tensors, exclude_BT, weights)
    for mine, reference in zip((*ours, *ours_grad), (*dense, *dense_grad), strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-10, atol=1e-10)


def test_values_follow_the_definition():
    query_BD, item_ND, value_NC = inputs((3, 9, 2, 2))
    exclude_BT = torch.tensor([[4, -1], [0, 8], [-1, -1]])
    lse_B, entropy_B, mean_BC = catalogue_pass(
        query_BD, item_ND, value_NC, exclude_BT, block_elements=6
    )
    for row in range(3):
        hidden = exclude_BT[row].tolist()
        weight = {
            i: math.exp(sum(query_BD[row, d].item() * item_ND[i, d].item() for d in range(2)))
            for i in range(9)
            if i not in hidden
        }
        total = sum(weight.values())
        law = {i: w / total for i, w in weight.items()}
        assert lse_B[row].item() == pytest.approx(math.log(total), rel=1e-12)
        wanted = -sum(p * math.log(p) for p in law.values())
        assert entropy_B[row].item() == pytest.approx(wanted, rel=1e-12)
        for c in range(2):
            wanted = sum(p * value_NC[i, c].item() for i, p in law.items())
            assert mean_BC[row, c].item() == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("values", [True, False])
def test_parts_of_the_catalogue_merge_into_the_whole(values):
    """In value and in the gradients of queries, items and values, with parts of unequal size."""
    torch.manual_seed(0)
    query_BD = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    item_ND = (3 * torch.randn(11, 5, dtype=torch.float64)).requires_grad_()
    value_NC = torch.rand(11, 2, dtype=torch.float64, requires_grad=True)
    shards = [
        catalogue_pass(query_BD, item_SD, value_SC if values else None)
        for item_SD, value_SC in zip(
            item_ND.split([6, 1, 4]), value_NC.split([6, 1, 4]), strict=True
        )
    ]
    lse, entropy, mean = zip(*shards, strict=True)
    mean_RBC = torch.stack(mean) if values else None
    merged = merged_shards(torch.stack(lse), torch.stack(entropy), mean_RBC)
    whole = catalogue_pass(query_BD, item_ND, value_NC if values else None)
    inputs = (query_BD, item_ND, *([value_NC] if values else []))
    gradients = []
    for statistics in (merged, whole):
        assert (statistics[2] is not None) == values
        total = sum((n + 1) * s.square().sum() for n, s in enumerate(statistics) if s is not None)
        gradients.append(torch.autograd.grad(total, inputs))
    torch.testing.assert_close(merged, whole)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("used", [c for n in (1, 2) for c in itertools.combinations(range(3), n)])
def test_outputs_that_nobody_uses_give_no_gradient(used):
    sizes = (4, 13, 3, 2)
    tensors = inputs(sizes)
    weights = [torch.randn(4).double(), torch.randn(4).double(), torch.randn(4, 2).double()]
    weights = [w if place in used else None for place, w in enumerate(weights)]
    exclude_BT = exclusions("duplicates", 4, 13)

    def streamed(*arguments):
        return catalogue_pass(*arguments, block_elements=20)

    _, ours = gradients(streamed, *tensors, exclude_BT, weights)
    _, dense = gradients(dense_pass, *tensors, exclude_BT, weights)
    for mine, reference in zip(ours, dense, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("needed", [0, 1, 2])
def test_gradient_of_one_input_alone(needed):
    tensors = inputs((4, 13, 3, 2))
    fixed = [t if place == needed else t.detach() for place, t in enumerate(tensors)]
    results = []
    for function in (catalogue_pass, dense_pass):
        total = sum(out.square().sum() for out in function(*fixed))
        results.append(torch.autograd.grad(total, fixed[needed])[0])
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", ["none", "duplicates"])
@pytest.mark.parametrize("used", [(True, False, False), (True, True, True)])
def test_scores_kept_for_the_backward_pass_serve_it_twice(kind, used):
    """One block is kept, more are made again; neither may change what it reads."""
    tensors, exclude_BT = inputs((3, 11, 2, 4)), exclusions(kind, 3, 11)
    found = []
    for block_elements in (3 * 11, 3 * 2):
        outputs = catalogue_pass(*tensors, exclude_BT, block_elements=block_elements)
        total = sum(out.square().sum() for out, use in zip(outputs, used, strict=True) if use)
        for _ in range(2):
            found.append(
                torch.autograd.grad(total, tensors[:2], retain_graph=True, allow_unused=True)
            )
    for other in found[1:]:
        torch.testing.assert_close(other, found[0])


def test_gradcheck():
    query_BD, item_ND, value_NC = inputs((3, 7, 2, 2))
    exclude_BT = torch.tensor([[0, 1], [6, -1], [-1, -1]])
    assert torch.autograd.gradcheck(
        lambda *tensors: catalogue_pass(*tensors, exclude_BT, block_elements=6),
        (query_BD, item_ND, value_NC),
    )


def test_without_values_the_mean_is_none():
    query_BD, item_ND, value_NC = inputs((3, 7, 2, 2))
    with_values = catalogue_pass(query_BD, item_ND, value_NC, block_elements=6)
    lse_B, entropy_B, mean_BC = catalogue_pass(query_BD, item_ND, block_elements=6)
    assert mean_BC is None
    assert torch.equal(lse_B, with_values[0]) and torch.equal(entropy_B, with_values[1])


@pytest.mark.parametrize("scale", [1e2, 1e4])
def test_extreme_scores(scale):
    torch.manual_seed(1)
    query_BD = torch.tensor([[scale], [-scale], [0.0]], dtype=torch.float64, requires_grad=True)
    item_ND = torch.linspace(-1, 1, 21, dtype=torch.float64)[:, None].requires_grad_()
    value_NC = torch.rand(21, 2, dtype=torch.float64, requires_grad=True)
    weights = [torch.randn(3).double(), torch.randn(3).double(), torch.randn(3, 2).double()]

    def streamed(*arguments):
        return catalogue_pass(*arguments, block_elements=12)

    ours, ours_grad = gradients(streamed, query_BD, item_ND, value_NC, None, weights)
    dense, dense_grad = gradients(dense_pass, query_BD, item_ND, value_NC, None, weights)
    for mine, reference in zip((*ours, *ours_grad), (*dense, *dense_grad), strict=True):
        assert torch.isfinite(mine).all()
        torch.testing.assert_close(mine, reference, rtol=1e-10, atol=1e-10)


def test_entropy_keeps_its_digits_when_scores_are_large_in_float32():
    # 2^14 + {0, 1, 2, 3}: exact in float32, but lse - mean score would be wrong by about 1e-3.
    item_ND = (2.0**14 + torch.arange(4.0))[:, None]
    _, entropy_B, _ = catalogue_pass(torch.ones(1, 1), item_ND, block_elements=1)
    law = torch.softmax(torch.arange(4.0).double(), 0)
    wanted = -(law * law.log()).sum().item()
    assert entropy_B.item() == pytest.approx(wanted, abs=1e-6)


def test_a_row_with_nothing_left_breaks_an_invariant():
    query_BD, item_ND, _ = inputs((2, 3, 2, 1))
    with pytest.raises(AssertionError, match="every item excluded"):
        catalogue_pass(query_BD, item_ND, None, torch.tensor([[0, -1, -1], [0, 1, 2]]))


def test_scores_that_are_no_numbers_go_through():
    """A diverged model must end in the training loop's error, which names the terms."""
    query_BD, item_ND, value_NC = inputs((2, 3, 2, 1))
    query_BD = query_BD.detach()
    query_BD[1, 0] = math.nan
    for answer in catalogue_pass(query_BD, item_ND, value_NC):
        assert torch.isfinite(answer[0]).all() and torch.isnan(answer[1]).all()


def test_excluded_mask_follows_the_table():
    like_BN = torch.zeros(2, 4)
    assert excluded_mask(None, like_BN) is None
    mask_BN = excluded_mask(torch.tensor([[3, -1, 3], [-1, 0, 1]]), like_BN)
    assert mask_BN.tolist() == [[False] * 3 + [True], [True, True, False, False]]


class Largest(TorchDispatchMode):
    """Remembers the number of elements of the largest tensor that any operation makes."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, torch.Tensor):
                self.elements = max(self.elements, leaf.numel())
        return made


def footprint(function, tensors, exclude_BT):
    """(largest tensor made in forward and backward, elements kept between the two)."""
    kept = []
    largest = Largest()
    keep = saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t)
    with largest, keep:
        total = sum(out.sum() for out in function(*tensors, exclude_BT))
        torch.autograd.grad(total, tensors)
    return largest.elements, sum(kept)


def test_never_holds_a_users_by_items_array():
    B, N, D, C = 64, 500, 4, 3
    tensors = inputs((B, N, D, C))
    exclude_BT = torch.randint(N, (B, 9))
    bound = 1024

    def streamed(*arguments):
        return catalogue_pass(*arguments, block_elements=bound)

    largest, kept = footprint(streamed, tensors, exclude_BT)
    assert largest <= max(bound, N * D, N * C)
    assert kept <= B * (D + C + 9 + 2) + N * (D + C) + B + B * C
    # The same measure sees the array where there is one.
    largest, kept = footprint(dense_pass, tensors, exclude_BT)
    assert largest >= B * N and kept >= B * N


@pytest.mark.parametrize("items_a_block", [1, 3, 1000])
def test_softplus_sum_equals_dense_in_value_and_gradient(items_a_block):
    query_BD, item_ND, _ = inputs((3, 11, 2, 1), scale=20.0)
    ours = softplus_sum(query_BD, item_ND, block_elements=3 * items_a_block)
    dense = F.softplus(query_BD @ item_ND.T).sum(1)
    torch.testing.assert_close(ours, dense)
    weight_B = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    for mine, wanted in zip(
        *(torch.autograd.grad(out @ weight_B, (query_BD, item_ND)) for out in (ours, dense)),
        strict=True,
    ):
        torch.testing.assert_close(mine, wanted)


def test_softplus_sum_never_holds_a_users_by_items_array():
    B, N, D = 64, 500, 4
    query_BD, item_ND, _ = inputs((B, N, D, 1))

    def streamed(query_BD, item_ND, _):
        return (softplus_sum(query_BD, item_ND, block_elements=1024),)

    largest, kept = footprint(streamed, (query_BD, item_ND), None)
    blocks = -(-N // (1024 // B))
    assert largest <= max(1024, N * D)
    assert kept <= blocks * B * D + N * D < B * N
