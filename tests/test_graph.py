"""Adjacency, walks and products against dense matrices; and multi-hot rows and unit vectors.

Shape letters: V nodes (users first), E interactions, D embedding size, W nodes of one walk.
"""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from inforec import graph
from inforec.graph import (
    WeightedGraph,
    edge_norm,
    normalised_adjacency,
    propagate,
    random_walk,
    walk_mean,
)
from inforec.layers import multi_hot, unit


@pytest.fixture
def train(make_interactions):
    """User 2 and item 3 have no edge."""
    return make_interactions([(0, 0), (0, 1), (0, 4), (1, 1), (3, 1), (3, 2)], 4, 5)


def dense_adjacency(train):
    adjacency_VV = torch.zeros(train.num_users + train.num_items, train.num_users + train.num_items)
    for user, item in zip(train.user.tolist(), train.item.tolist(), strict=True):
        adjacency_VV[user, train.num_users + item] = 1
        adjacency_VV[train.num_users + item, user] = 1
    return adjacency_VV


def test_entries_are_one_over_the_root_of_both_degrees(train):
    wanted_VV = dense_adjacency(train)
    degree_V = wanted_VV.sum(1)
    for v, w in wanted_VV.nonzero().tolist():
        wanted_VV[v, w] = 1 / math.sqrt(degree_V[v] * degree_V[w])
    torch.testing.assert_close(normalised_adjacency(train).to_dense(), wanted_VV)


def test_adjacency_is_sparse_symmetric_and_has_no_warning(train):
    adjacency_VV = normalised_adjacency(train)
    assert adjacency_VV.layout == torch.sparse_csr
    assert adjacency_VV.values().numel() == 2 * len(train)
    assert torch.equal(adjacency_VV.to_dense(), adjacency_VV.to_dense().T)


def test_largest_eigenvalue_is_one(train):
    values = torch.linalg.eigvalsh(normalised_adjacency(train).to_dense().double())
    assert values.abs().max().item() == pytest.approx(1.0, abs=1e-6)


def test_propagate_equals_the_dense_product_in_value_and_gradient(train):
    torch.manual_seed(0)
    adjacency_VV = normalised_adjacency(train).double()
    dense_VV = adjacency_VV.to_dense()
    node_VD = torch.randn(9, 3, dtype=torch.float64, requires_grad=True)
    weight_VD = torch.randn(9, 3, dtype=torch.float64)
    ours, dense = propagate(adjacency_VV, node_VD), dense_VV @ node_VD
    torch.testing.assert_close(ours, dense)
    gradients = [torch.autograd.grad((out * weight_VD).sum(), node_VD) for out in (ours, dense)]
    torch.testing.assert_close(*gradients)
    assert torch.autograd.gradcheck(lambda node: propagate(adjacency_VV, node), node_VD)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_propagate_takes_any_layout_of_the_nodes_and_wide_indices(train, dtype):
    torch.manual_seed(0)
    adjacency_VV = normalised_adjacency(train).to(dtype)
    assert adjacency_VV.col_indices().dtype == torch.int32
    first, column = adjacency_VV.crow_indices().long(), adjacency_VV.col_indices().long()
    wide_VV = graph._csr(first, column, adjacency_VV.values())
    node_VD = torch.randn(6, 9, dtype=dtype).T[:, ::2]
    wanted_VD = adjacency_VV.to_dense() @ node_VD
    for matrix_VV in (adjacency_VV, wide_VV):
        torch.testing.assert_close(propagate(matrix_VV, node_VD), wanted_VD)


def test_propagate_is_twice_differentiable(train):
    mean_VV, transposed_VV = (m.double() for m in walk_mean(torch.tensor([[0, 1], [1, 2], [2, 2]])))
    node_VD = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(
        lambda node: propagate(mean_VV, node, transposed_VV).square(), node_VD
    )


def test_multi_hot_marks_the_history_and_nothing_for_the_padding():
    hot_BN = multi_hot(torch.tensor([[2, 0, -1], [-1, -1, -1], [3, 3, 1]]), 4)
    assert hot_BN.tolist() == [[1, 0, 1, 0], [0, 0, 0, 0], [0, 1, 0, 1]]


def test_a_matrix_that_is_not_symmetric_brings_its_transpose():
    torch.manual_seed(0)
    mean_VV, transposed_VV = (m.double() for m in walk_mean(torch.tensor([[0, 1], [1, 2], [2, 2]])))
    dense_VV = mean_VV.to_dense()
    assert not torch.equal(dense_VV, dense_VV.T)
    node_VD = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(propagate(mean_VV, node_VD, transposed_VV), dense_VV @ node_VD)
    assert torch.autograd.gradcheck(lambda node: propagate(mean_VV, node, transposed_VV), node_VD)


def test_walk_mean_averages_over_distinct_nodes():
    walk_VW = torch.tensor([[0, 3, 0, 3], [1, 1, 1, 1], [2, 0, 3, 1], [3, 0, 1, 0]])
    third, wanted_VV = 1 / 3, torch.zeros(4, 4)
    wanted_VV[0, [0, 3]] = 0.5
    wanted_VV[1, 1] = 1.0
    wanted_VV[2] = 0.25
    wanted_VV[3, [0, 1, 3]] = third
    mean_VV, transposed_VV = walk_mean(walk_VW)
    torch.testing.assert_close(mean_VV.to_dense(), wanted_VV)
    torch.testing.assert_close(transposed_VV.to_dense(), wanted_VV.T)


def test_walks_follow_edges_and_stay_where_there_is_none(train):
    adjacency_VV = normalised_adjacency(train)
    linked_VV = dense_adjacency(train) > 0
    walk_VW = random_walk(adjacency_VV, 40, torch.Generator().manual_seed(0))
    assert walk_VW.shape == (9, 41) and walk_VW[:, 0].tolist() == list(range(9))
    for v in (2, 4 + 3):
        assert set(walk_VW[v].tolist()) == {v}
    for walk in walk_VW.tolist():
        for here, there in pairwise(walk):
            assert linked_VV[here, there] or (here == there and here in (2, 4 + 3))
    again_VW = random_walk(adjacency_VV, 40, torch.Generator().manual_seed(0))
    assert torch.equal(walk_VW, again_VW)


def test_a_step_of_a_walk_is_uniform_over_the_neighbours(make_interactions):
    """4000 users who took the same four items: each item gets a quarter of the first steps."""
    train = make_interactions([(u, i) for u in range(4000) for i in range(4)], 4000, 4)
    walk_VW = random_walk(normalised_adjacency(train), 1, torch.Generator().manual_seed(0))
    share = torch.bincount(walk_VW[:4000, 1] - 4000) / 4000
    assert share.tolist() == pytest.approx([0.25] * 4, abs=0.03)  # four standard deviations


def test_the_weighted_graph_with_the_norms_is_the_normalised_adjacency(train):
    weighted_VV = WeightedGraph(train).matrix(edge_norm(train))
    torch.testing.assert_close(weighted_VV.to_dense(), normalised_adjacency(train).to_dense())


def test_the_kept_graph_is_the_normalised_adjacency_of_what_is_kept(train):
    keep_E = torch.tensor([True, False, True, True, True, False])
    some = replace(train, user=train.user[keep_E], item=train.item[keep_E])
    kept_VV, wanted_VV = WeightedGraph(train).kept(keep_E), normalised_adjacency(some)
    for name in ("crow_indices", "col_indices", "values"):
        assert torch.equal(getattr(kept_VV, name)(), getattr(wanted_VV, name)())
    nothing_VV = WeightedGraph(train).kept(torch.zeros(len(train), dtype=torch.bool))
    assert not nothing_VV.to_dense().any()


@pytest.mark.parametrize("block", [2**17, 4])
def test_the_weighted_product_equals_the_dense_one_in_value_and_gradient(train, block, monkeypatch):
    monkeypatch.setattr(graph, "BLOCK", block)
    torch.manual_seed(0)
    weighted = WeightedGraph(train)
    weight_E = torch.randn(len(train), dtype=torch.float64, requires_grad=True)
    node_VD = torch.randn(9, 3, dtype=torch.float64, requires_grad=True)
    dense_VV = torch.zeros(9, 9, dtype=torch.float64)
    index = (train.user, train.num_users + train.item)
    dense_VV = dense_VV.index_put(index, weight_E).index_put(index[::-1], weight_E)
    ours, dense = weighted(weight_E, node_VD), dense_VV @ node_VD
    torch.testing.assert_close(ours, dense)
    toward_VD = torch.randn(9, 3, dtype=torch.float64)
    gradients = [
        torch.autograd.grad((out * toward_VD).sum(), (weight_E, node_VD)) for out in (ours, dense)
    ]
    torch.testing.assert_close(*gradients)
    assert torch.autograd.gradcheck(weighted, (weight_E, node_VD))
    # Weights or nodes alone.
    assert torch.autograd.gradcheck(lambda w: weighted(w, node_VD.detach()), weight_E)
    assert torch.autograd.gradcheck(lambda x: weighted(weight_E.detach(), x), node_VD)


def test_the_weighted_product_is_in_full_precision_under_mixed_precision(train):
    torch.manual_seed(0)
    weighted, weight_E = WeightedGraph(train), edge_norm(train).requires_grad_()
    node_VD = torch.randn(9, 3, requires_grad=True)
    results = []
    for mixed in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
            out_VD = weighted(weight_E, node_VD)
            gradients = torch.autograd.grad(out_VD.square().sum(), (weight_E, node_VD))
        results.append((out_VD, *gradients))
    torch.testing.assert_close(*results)
    half_VD = node_VD.detach().bfloat16().requires_grad_()
    half_E = weight_E.detach().bfloat16()
    out_VD = weighted(half_E, half_VD)
    assert out_VD.dtype == torch.float32
    torch.testing.assert_close(out_VD, weighted(half_E.float(), half_VD.float()))
    out_VD.sum().backward()
    assert half_VD.grad.dtype == torch.bfloat16


def test_unit_divides_by_the_length_and_leaves_zeros():
    x_BD = torch.tensor([[3.0, 4.0], [0.0, 0.0], [0.0, 2e-7]], requires_grad=True)
    torch.testing.assert_close(unit(x_BD).tolist(), [[0.6, 0.8], [0.0, 0.0], [0.0, 0.2]])
    (g_BD,) = torch.autograd.grad(unit(x_BD).sum(), x_BD)
    assert torch.isfinite(g_BD).all() and g_BD.abs().max() <= 1e6 + 1
