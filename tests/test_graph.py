"""The normalised adjacency and its product, against dense matrices; and multi-hot rows.

Shape letters: V nodes (users first), D embedding size.
"""

import math

import pytest
import torch

from inforec.graph import normalised_adjacency, propagate
from inforec.layers import multi_hot


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


def test_multi_hot_marks_the_history_and_nothing_for_the_padding():
    hot_BN = multi_hot(torch.tensor([[2, 0, -1], [-1, -1, -1], [3, 3, 1]]), 4)
    assert hot_BN.tolist() == [[1, 0, 1, 0], [0, 0, 0, 0], [0, 1, 0, 1]]
