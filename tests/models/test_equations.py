"""Each model against its own equation, written slowly.

Shape letters: B rows, U users, N items, V nodes (users first), D embedding size.
"""

import math

import pytest
import torch

from inforec.layers import multi_hot
from inforec.models import REGISTRY
from inforec.types import Interactions, Query


@pytest.fixture
def users(tiny):
    return Query(torch.arange(tiny.num_users), tiny.train.history_UT)


def pairs(data):
    return list(zip(data.train.user.tolist(), data.train.item.tolist(), strict=True))


def test_popularity_counts_training_interactions(tiny, users):
    score_BN = REGISTRY["popularity"](tiny.train).score(users)
    for item in range(tiny.num_items):
        count = sum(i == item for _, i in pairs(tiny))
        assert score_BN[:, item].tolist() == [count] * tiny.num_users


def test_mf_is_the_dot_product_of_two_rows(tiny):
    torch.manual_seed(0)
    model = REGISTRY["mf"](tiny.train, REGISTRY["mf"].Config(dim=3))
    score_BN = model.score(Query(torch.tensor([5, 2])))
    for row, user in enumerate((5, 2)):
        for item in range(tiny.num_items):
            p, q = model.user_UD.weight[user].tolist(), model.item_ND.weight[item].tolist()
            slow = sum(a * b for a, b in zip(p, q, strict=True))
            assert score_BN[row, item].item() == pytest.approx(slow, abs=1e-7)


@pytest.mark.parametrize("l2", [0.5, 20.0])
def test_ease_solves_the_ridge_regression_of_each_item_on_the_others(tiny, users, l2):
    model = REGISTRY["ease"](tiny.train, REGISTRY["ease"].Config(l2=l2))
    model.on_fit_start()
    taken_UN = torch.zeros(tiny.num_users, tiny.num_items, dtype=torch.float64)
    for user, item in pairs(tiny):
        taken_UN[user, item] = 1.0
    wanted_NN = torch.zeros(tiny.num_items, tiny.num_items, dtype=torch.float64)
    for j in range(tiny.num_items):
        others = [i for i in range(tiny.num_items) if i != j]
        X = taken_UN[:, others]
        ridge = X.T @ X + l2 * torch.eye(len(others), dtype=torch.float64)
        wanted_NN[others, j] = torch.linalg.solve(ridge, X.T @ taken_UN[:, j])
    torch.testing.assert_close(model.weight_NN.double(), wanted_NN, rtol=1e-5, atol=1e-6)
    assert model.weight_NN.diagonal().abs().max() == 0
    torch.testing.assert_close(
        model.score(users).double(), taken_UN @ wanted_NN, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("neighbours, shrinkage", [(1000, 0.0), (1000, 10.0), (4, 2.0)])
def test_itemknn_follows_a_double_loop(tiny, users, neighbours, shrinkage):
    config = REGISTRY["itemknn"].Config(neighbours=neighbours, shrinkage=shrinkage)
    model = REGISTRY["itemknn"](tiny.train, config)
    model.on_fit_start()
    takers = [{u for u, i in pairs(tiny) if i == item} for item in range(tiny.num_items)]
    weight_NN = model.weight_NN.to_dense().T  # its row j holds the w_ij of all i
    for i in range(tiny.num_items):
        slow = []
        for j in range(tiny.num_items):
            both = len(takers[i] & takers[j])
            root = math.sqrt(len(takers[i]) * len(takers[j]))
            slow.append(both / (root + shrinkage) if both and i != j else 0.0)
        kept = [j for j in range(tiny.num_items) if weight_NN[i, j] > 0]
        # Ties at the border may go either way: the weights kept are the k largest, at their places.
        largest = [w for w in sorted(slow, reverse=True)[:neighbours] if w]
        assert sorted(weight_NN[i, kept].tolist(), reverse=True) == pytest.approx(largest, rel=1e-5)
        assert weight_NN[i, kept].tolist() == pytest.approx([slow[j] for j in kept], rel=1e-5)
    score_BN = model.score(users)
    for user in range(tiny.num_users):
        history = [i for u, i in pairs(tiny) if u == user]
        wanted = [sum(weight_NN[i, j].item() for j in history) for i in range(tiny.num_items)]
        assert score_BN[user].tolist() == pytest.approx(wanted, abs=1e-5)


def test_itemknn_across_blocks_of_items(make_interactions):
    """More items than one block of 1024: the similarities do not depend on the block."""
    size = 1100
    train = make_interactions([(u, i) for i in range(size) for u in (i % 7, 7 + i % 11)], 18, size)
    model = REGISTRY["itemknn"](train, REGISTRY["itemknn"].Config(neighbours=size, shrinkage=1.0))
    model.on_fit_start()
    taken_UN = multi_hot(train.history_UT, size)
    both_NN = taken_UN.T @ taken_UN
    root_N = taken_UN.sum(0).sqrt()
    wanted_NN = both_NN / (root_N[:, None] * root_N + 1.0)
    wanted_NN.fill_diagonal_(0.0)
    torch.testing.assert_close(model.weight_NN.to_dense(), wanted_NN)


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_lightgcn_averages_its_layers_over_nodes_and_neighbours(tiny, users, layers):
    torch.manual_seed(0)
    model = REGISTRY["lightgcn"](tiny.train, REGISTRY["lightgcn"].Config(dim=2, layers=layers))
    size = tiny.num_users + tiny.num_items
    neighbours = [[] for _ in range(size)]
    for user, item in pairs(tiny):
        neighbours[user].append(tiny.num_users + item)
        neighbours[tiny.num_users + item].append(user)
    layer = model.node_VD.tolist()
    total = [row[:] for row in layer]
    for _ in range(layers):
        layer = [
            [
                sum(
                    layer[w][d] / math.sqrt(len(neighbours[v]) * len(neighbours[w]))
                    for w in neighbours[v]
                )
                for d in range(2)
            ]
            for v in range(size)
        ]
        total = [
            [t + x for t, x in zip(*rows, strict=True)] for rows in zip(total, layer, strict=True)
        ]
    final = torch.tensor(total) / (layers + 1)
    torch.testing.assert_close(model.propagated(), final, rtol=1e-5, atol=1e-6)
    score_BN = final[: tiny.num_users] @ final[tiny.num_users :].T
    torch.testing.assert_close(model.score(users), score_BN, rtol=1e-5, atol=1e-6)


def test_lightgcn_gradient_is_that_of_the_dense_matrix(tiny):
    torch.manual_seed(0)
    model = REGISTRY["lightgcn"](tiny.train, REGISTRY["lightgcn"].Config(dim=2, layers=2)).double()
    dense_VV = model.adjacency_VV.to_dense()
    weight_VD = torch.randn(len(dense_VV), 2, dtype=torch.float64)
    E = model.node_VD
    dense = (E + dense_VV @ E + dense_VV @ (dense_VV @ E)) / 3
    ours = torch.autograd.grad((model.propagated() * weight_VD).sum(), E)
    torch.testing.assert_close(ours, torch.autograd.grad((dense * weight_VD).sum(), E))


def test_ease_refuses_a_catalogue_whose_matrices_would_not_fit():
    one = torch.zeros(1, dtype=torch.int64)
    train = Interactions(one, one, num_users=1, num_items=30_000)
    with pytest.raises(ValueError, match=r"EASE on 30,000 items: expected at most 25,000"):
        REGISTRY["ease"](train)
