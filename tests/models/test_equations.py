"""Each model against its own equation, written slowly.

Shape letters: B rows, U users, N items, V nodes (users first), D embedding size.
"""

import math

import pytest
import torch
import torch.nn.functional as F

from inforec import losses
from inforec.batches import PairBatches, UserBatches
from inforec.layers import corrupted_sum, multi_hot
from inforec.models import REGISTRY
from inforec.train import FitConfig, Objective, fit
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


BARE = {
    **dict.fromkeys(("transform", "affinity", "nonlinear", "self_connection"), False),
    "combine": "mean",
    "message_dropout": 0.0,
}


def slow_ngcf(model, edges, heard, kept):
    """The final vectors, message by message: ``heard`` scales senders, ``kept`` what is received.

    Both hold one entry a layer: a number a node, and a number for each entry of a node's vector.
    """
    config, size, dim = model.config, len(model.node_VD), model.config.dim
    lists = {name: value.tolist() for name, value in model.state_dict().items()}
    same = [[float(a == b) for b in range(dim)] for a in range(dim)]
    degree = [0] * size
    for ends in edges:
        for v in ends:
            degree[v] += 1
    layers = [lists["node_VD"]]
    for number in range(config.layers):
        vectors, W1, W2 = layers[-1], same, same
        if config.transform:
            W1 = lists["neighbour_LDD"][number]
            W2 = lists["affinity_LDD"][number] if config.affinity else None

        def times(row, matrix):
            return [sum(row[a] * matrix[a][b] for a in range(dim)) for b in range(dim)]

        received = [[0.0] * dim for _ in range(size)]
        for one, other in edges:
            for sender, receiver in ((one, other), (other, one)):
                message = times(vectors[sender], W1)
                if config.affinity:
                    both = [x * y for x, y in zip(*(vectors[v] for v in (one, other)), strict=True)]
                    message = [m + b for m, b in zip(message, times(both, W2), strict=True)]
                weight = heard[number][sender] / math.sqrt(degree[one] * degree[other])
                for d in range(dim):
                    received[receiver][d] += weight * message[d]
        if config.self_connection:
            for v in range(size):
                own = times(vectors[v], W1)
                received[v] = [r + o for r, o in zip(received[v], own, strict=True)]
        if config.nonlinear:
            received = [[x if x > 0 else 0.2 * x for x in row] for row in received]
        received = [
            [x * k for x, k in zip(*rows, strict=True)]
            for rows in zip(received, kept[number], strict=True)
        ]
        if config.combine == "unit":
            received = [[x / math.hypot(*row) for x in row] for row in received]
        layers.append(received)
    if config.combine == "mean":
        return torch.tensor(layers).mean(0)
    return torch.tensor([[x for layer in layers for x in layer[v]] for v in range(size)])


def ngcf(data, **options):
    """A small one whose parts all matter."""
    torch.manual_seed(0)
    model = REGISTRY["ngcf"](data.train, REGISTRY["ngcf"].Config(dim=3, **options))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.7)
    return model


def test_ngcf_at_unit_length_starts_as_glorot_says():
    one = torch.zeros(1, dtype=torch.long)
    data = Interactions(user=one, item=one, num_users=300, num_items=900)
    model = REGISTRY["ngcf"](data, REGISTRY["ngcf"].Config(dim=64, combine="unit"))
    user_UD, item_ND = model.node_VD.detach().split([data.num_users, data.num_items])
    assert user_UD.std().item() == pytest.approx(math.sqrt(2 / (300 + 64)), rel=0.05)
    assert item_ND.std().item() == pytest.approx(math.sqrt(2 / (900 + 64)), rel=0.05)
    plain = REGISTRY["ngcf"](data, REGISTRY["ngcf"].Config(dim=64))
    assert plain.node_VD.std().item() == pytest.approx(0.1, rel=0.05)


def edges(data):
    return [(user, data.num_users + item) for user, item in pairs(data)]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"layers": 1},
        {"transform": False},
        {"affinity": False},
        {"nonlinear": False},
        {"self_connection": False},
        {"combine": "mean"},
        {"combine": "unit"},
        {"transform": False, "nonlinear": False},
        {"affinity": False, "self_connection": False},
    ],
    ids=lambda options: " ".join(options) or "whole",
)
def test_ngcf_follows_its_messages_one_by_one(tiny, users, options):
    model = ngcf(tiny, **{"layers": 2, **options}).eval()
    size, layers = tiny.num_users + tiny.num_items, model.config.layers
    ones = [[1.0] * size] * layers, [[[1.0] * 3] * size] * layers
    final = slow_ngcf(model, edges(tiny), *ones)
    assert final.shape[1] == 3 * (1 if model.config.combine == "mean" else layers + 1)
    torch.testing.assert_close(model.propagated(), final, rtol=1e-5, atol=1e-5)
    score_BN = final[: tiny.num_users] @ final[tiny.num_users :].T
    torch.testing.assert_close(model.score(users), score_BN, rtol=1e-5, atol=1e-4)


def test_ngcf_drops_senders_and_entries_in_training(tiny, monkeypatch):
    model = ngcf(tiny, layers=2, node_dropout=0.3, message_dropout=0.6)
    asked = []

    def dropout(x, p, training):
        assert training
        # What PyTorch draws: 0 with chance p, else 1 / (1 - p).
        asked.append((p, (torch.rand(x.shape) >= p) / (1 - p)))
        return x * asked[-1][1]

    monkeypatch.setattr(F, "dropout", dropout)
    final = model.train().propagated()
    assert [p for p, _ in asked] == [0.3, 0.6, 0.3, 0.6]
    heard = [mask[:, 0].tolist() for _, mask in asked[0::2]]
    kept = [mask.tolist() for _, mask in asked[1::2]]
    assert heard[0] != heard[1] and len(heard[0]) == tiny.num_users + tiny.num_items
    wanted = slow_ngcf(model, edges(tiny), heard, kept)
    torch.testing.assert_close(final, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("option", ["node_dropout", "message_dropout"])
def test_ngcf_drops_in_training_only_and_keeps_the_mean(tiny, option):
    plain = {"layers": 1, "nonlinear": False, "message_dropout": 0.0}
    model = ngcf(tiny, **{**plain, option: 0.5})
    with torch.no_grad():
        whole = model.eval().propagated()
        assert torch.equal(model.propagated(), whole)
        torch.testing.assert_close(ngcf(tiny, **plain).train().propagated(), whole)
        first, second = (model.train().propagated() for _ in range(2))
        assert not torch.equal(first, second)
        assert torch.equal(first[:, :3], whole[:, :3])  # layer 0 stays as it is
        drawn = torch.stack([model.propagated() for _ in range(2000)])
    torch.testing.assert_close(drawn.mean(0), whole, rtol=0, atol=0.2)
    assert drawn.std(0)[:, 3:].max() > 0.5
    if option == "message_dropout":
        share = (drawn[:, :, 3:] == 0).float().mean()
        assert share.item() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_ngcf_without_its_pieces_is_lightgcn(tiny, users, layers):
    """In its scores, in its gradient, and after training."""
    models = []
    for name, options in (("lightgcn", {}), ("ngcf", BARE)):
        torch.manual_seed(0)
        config = REGISTRY[name].Config(dim=4, layers=layers, **options)
        models.append(REGISTRY[name](tiny.train, config))
    light, bare = models
    assert [n for n, _ in bare.named_parameters()] == ["node_VD"]
    objective = Objective(
        "softmax", lambda output, batch: losses.softmax(output.distribution, output.target)
    )
    (batch,) = UserBatches(tiny.train, 10**6, 0).epoch(1)
    config = FitConfig(epochs=20, learning_rate=0.02, device="cpu", progress=False)
    start = light.score(users).detach()
    for step in range(2):
        assert (bare.score(users) - light.score(users)).abs().max() < 1e-6
        g_light, g_bare = (
            torch.autograd.grad(objective.function(model.train()(batch), batch), model.node_VD)[0]
            for model in models
        )
        assert (g_bare - g_light).abs().max() < 1e-6 < g_light.abs().max()
        if step == 0:
            for model in models:
                fit(model, UserBatches(tiny.train, 10**6, 0), objective, config)
    assert (light.score(users) - start).abs().max() > 0.1


def test_ease_refuses_a_catalogue_whose_matrices_would_not_fit():
    one = torch.zeros(1, dtype=torch.int64)
    train = Interactions(one, one, num_users=1, num_items=30_000)
    with pytest.raises(ValueError, match=r"EASE on 30,000 items: expected at most 25,000"):
        REGISTRY["ease"](train)


def slow_layer(weight, bias, values):
    """W v + b of one row, with loops over lists."""
    return [
        sum(w * v for w, v in zip(row, values, strict=True)) + b
        for row, b in zip(weight, bias, strict=True)
    ]


def slow_multvae(model, items, noise):
    """The scores and the rate of one user, item by item and unit by unit."""
    lists = {name: value.tolist() for name, value in model.state_dict().items()}
    columns = [list(column) for column in zip(*lists["input_NH"], strict=True)]
    x = [1 / math.sqrt(len(items)) if i in items else 0.0 for i in range(model.num_items)]
    hidden = [math.tanh(v) for v in slow_layer(columns, lists["input_H"], x)]
    code = slow_layer(lists["code.weight"], lists["code.bias"], hidden)
    mean, log_variance = code[: len(noise)], code[len(noise) :]
    z = [m + math.exp(v / 2) * e for m, v, e in zip(mean, log_variance, noise, strict=True)]
    hidden = [math.tanh(v) for v in slow_layer(lists["hidden.weight"], lists["hidden.bias"], z)]
    rate = sum((m * m + math.exp(v) - 1 - v) / 2 for m, v in zip(mean, log_variance, strict=True))
    return slow_layer(lists["output.weight"], lists["output.bias"], hidden), rate


@pytest.fixture
def multvae(tiny):
    """A small one whose codes are far from the prior, without dropout."""
    torch.manual_seed(0)
    config = REGISTRY["multvae"].Config(hidden=5, dim=2, dropout=0.0, weight=0.7, anneal=4)
    model = REGISTRY["multvae"](tiny.train, config).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.8)
    return model


def test_multvae_decodes_the_mean_of_its_code_or_a_draw_around_it(
    tiny, users, multvae, monkeypatch
):
    noise_UD = torch.randn(tiny.num_users, 2, dtype=torch.float64)
    monkeypatch.setattr(torch, "randn_like", lambda mean: noise_UD)
    multvae.on_epoch_start(3)  # of 4: the term is at three quarters of its weight
    batch = next(UserBatches(tiny.train, 10**6, 0).epoch(1))
    scores_BN = multvae.eval().score(users)
    output = multvae.train()(batch)
    every_BN = torch.arange(tiny.num_items).expand(tiny.num_users, -1)
    log_law_BN = output.distribution.log_prob(every_BN)
    rates = 0.0
    for row, user in enumerate(batch.user.tolist()):
        items = [i for u, i in pairs(tiny) if u == user]
        wanted, _ = slow_multvae(multvae, items, [0.0, 0.0])
        assert scores_BN[user].tolist() == pytest.approx(wanted, rel=1e-9)
        wanted, rate = slow_multvae(multvae, items, noise_UD[row].tolist())
        wanted = torch.tensor(wanted, dtype=torch.float64).log_softmax(0)
        torch.testing.assert_close(log_law_BN[row], wanted)
        rates += rate
    # A sum over users, as the loss outside is one over interactions, both over their number.
    wanted = 0.7 * 0.75 * rates / len(tiny.train)
    assert output.aux["rate"].item() == pytest.approx(wanted, rel=1e-9) and wanted > 0.1


def test_multvae_counts_the_rate_of_a_user_once_an_epoch_in_pairs_too(tiny, users, multvae):
    multvae.train().on_epoch_start(9)
    (batch,) = PairBatches(tiny.train, 10**6, 0, negatives=1, popular=False).epoch(1)
    (of_users,) = UserBatches(tiny.train, 10**6, 0).epoch(1)
    in_pairs, in_users = multvae(batch).aux["rate"], multvae(of_users).aux["rate"]
    torch.testing.assert_close(in_pairs, in_users)
    rate_U = [slow_multvae(multvae, h[h >= 0].tolist(), [0.0, 0.0])[1] for h in users.history]
    assert in_users.item() == pytest.approx(0.7 * sum(rate_U) / len(tiny.train), rel=1e-9)


def test_multvae_hides_items_from_its_encoder_in_training_only(tiny, users):
    torch.manual_seed(0)
    config = REGISTRY["multvae"].Config(hidden=5, dim=2, dropout=0.5)
    model = REGISTRY["multvae"](tiny.train, config)
    first, second = (model.train().encode(users.history)[0] for _ in range(2))
    assert not torch.equal(first, second)
    # What is left is scaled up, so that the mean over draws is the input without dropout.
    with torch.no_grad():
        model.input_H.zero_()
        model.input_NH.mul_(1e-3)  # where tanh is linear
        drawn = torch.stack([model.encode(users.history)[0] for _ in range(4000)]).mean(0)
        whole = model.eval().encode(users.history)[0]
    assert (whole - model.code.bias[:2]).abs().max() > 1e-4
    torch.testing.assert_close(drawn, whole, atol=2e-5, rtol=0)


def slow_dae(model, items, hidden_items, user=None):
    """The scores of one user of DAE or CDAE, item by item and unit by unit.

    ``hidden_items`` are what the corruption takes; None is outside training.
    """
    lists = {name: value.tolist() for name, value in model.state_dict().items()}
    columns = [list(column) for column in zip(*lists["input_NH"], strict=True)]
    length = math.sqrt(len(items)) if user is None else 1.0
    scale = 1.0 if hidden_items is None else 1 / (1 - model.config.corruption)
    kept = [i for i in items if i not in (hidden_items or ())]
    x = [scale / length if i in kept else 0.0 for i in range(model.num_items)]
    hidden = slow_layer(columns, lists["input_H"], x)
    if user is None:
        hidden = [math.tanh(h) for h in hidden]
    else:
        of_user = lists["user_UH.weight"][user]
        hidden = [1 / (1 + math.exp(-(h + v))) for h, v in zip(hidden, of_user, strict=True)]
    return slow_layer(lists["output.weight"], lists["output.bias"], hidden)


@pytest.fixture(params=["dae", "cdae"])
def denoising(request, tiny):
    torch.manual_seed(0)
    kind = REGISTRY[request.param]
    model = kind(tiny.train, kind.Config(hidden=4, corruption=0.25)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.8)
    return model


def test_denoising_auto_encoders_follow_their_equation(tiny, users, denoising, monkeypatch):
    whole_BN = denoising.eval().score(users)
    hidden_BT = torch.rand(users.history.shape) < 0.4  # what to hide, in place of chance

    def hide(weight_BT, corruption, training):
        assert corruption == 0.25
        return weight_BT.masked_fill(hidden_BT, 0.0) / (1 - corruption) if training else weight_BT

    monkeypatch.setattr("inforec.layers.F.dropout", hide)
    corrupted_BN = denoising.train().score(users)
    for user, history in enumerate(users.history.tolist()):
        items = [i for i in history if i >= 0]
        taken = [i for i, gone in zip(history, hidden_BT[user].tolist(), strict=True) if gone]
        own = user if hasattr(denoising, "user_UH") else None
        wanted = slow_dae(denoising, items, None, own)
        assert whole_BN[user].tolist() == pytest.approx(wanted, rel=1e-9)
        wanted = slow_dae(denoising, items, taken, own)
        assert corrupted_BN[user].tolist() == pytest.approx(wanted, rel=1e-9)
    assert not torch.allclose(whole_BN, corrupted_BN, atol=1e-3)


def test_corruption_leaves_the_mean_of_the_input_alone():
    torch.manual_seed(0)
    history_BT, item_NH = torch.tensor([[0, 2, 4, -1]]), torch.randn(5, 3)
    settings = {"corruption": 0.4, "unit_length": False}
    whole_BH = corrupted_sum(history_BT, item_NH, training=False, **settings)
    torch.testing.assert_close(whole_BH[0], item_NH[[0, 2, 4]].sum(0))
    many_BT = history_BT.expand(40_000, -1)
    drawn_BH = corrupted_sum(many_BT, item_NH, training=True, **settings)
    torch.testing.assert_close(drawn_BH.mean(0, keepdim=True), whole_BH, atol=0.04, rtol=0)
    # Each item is hidden by itself, and nothing else is drawn: eight different sums.
    assert len(torch.unique(drawn_BH.round(decimals=4), dim=0)) == 8
