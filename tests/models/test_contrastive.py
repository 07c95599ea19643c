"""The contrastive models against their own equations, written slowly, with their draws drawn again.

Shape letters: B rows, N items, V nodes (users first), E interactions, D embedding size.
"""

import math

import pytest
import torch

from inforec import losses
from inforec.batches import PairBatches, UserBatches
from inforec.evaluate import evaluate
from inforec.models import REGISTRY
from inforec.train import FitConfig, Objective, fit
from inforec.types import Batch, Query

CONTRASTIVE = ["sgl", "simgcl", "xsimgcl", "directau", "cgi"]
BPR = Objective("bpr", lambda output, batch: losses.bpr(output.logits[:, 0], output.logits[:, 1:]))
SOFTMAX = Objective("softmax", lambda out, batch: losses.softmax(out.distribution, out.target))


def build(name, data, double=True, **options):
    """The model in training, at dimension 3 unless said, its epoch begun."""
    torch.manual_seed(0)
    model = REGISTRY[name](data.train, REGISTRY[name].Config(**{"dim": 3, **options}))
    model = model.double() if double else model
    torch.manual_seed(11)
    model.train().on_epoch_start(1)
    return model


def batch_of(data, kind):
    """The first batch of an epoch; of pairs, with users that occur twice."""
    if kind == "users":
        return next(UserBatches(data.train, 40, 0).epoch(1))
    batch = next(PairBatches(data.train, 40, 0, negatives=2, popular=False).epoch(1))
    assert len(set(batch.user.tolist())) < len(batch.user)
    return batch


def pairs_in(batch):
    """The (user, positive) pairs of either kind of batch."""
    if batch.items is not None:
        return list(zip(batch.user.tolist(), batch.items[:, 0].tolist(), strict=True))
    rows = zip(batch.user.tolist(), batch.target.tolist(), strict=True)
    return [(user, item) for user, items in rows for item in items if item >= 0]


def edges_of(data):
    """(user, item as a node) of every interaction."""
    taken = zip(data.train.user.tolist(), data.train.item.tolist(), strict=True)
    return [(user, data.num_users + item) for user, item in taken]


def step(edges, rows, gates=None):
    """One step of propagation, by the degrees of these edges, each with its gate."""
    degree = [0] * len(rows)
    for ends in edges:
        for v in ends:
            degree[v] += 1
    out = [[0.0] * len(rows[0]) for _ in rows]
    for e, (v, w) in enumerate(edges):
        weight = (1.0 if gates is None else gates[e]) / math.sqrt(degree[v] * degree[w])
        for d in range(len(rows[0])):
            out[v][d] += weight * rows[w][d]
            out[w][d] += weight * rows[v][d]
    return out


def mean(layers):
    return torch.tensor(layers, dtype=torch.float64).mean(0)


def cosine(x, y):
    dot = sum(a * b for a, b in zip(x, y, strict=True))
    return dot / math.sqrt(sum(a * a for a in x) * sum(b * b for b in y))


def slow_info_nce(first, second, nodes, temperature):
    total = 0.0
    for v in nodes:
        logits = [cosine(first[v], second[w]) / temperature for w in nodes]
        own = cosine(first[v], second[v]) / temperature
        total += math.log(sum(math.exp(x) for x in logits)) - own
    return total / len(nodes)


def slow_contrast(data, batch, first_VD, second_VD, temperature):
    """InfoNCE over the distinct users plus that over the distinct positives."""
    first, second = first_VD.tolist(), second_VD.tolist()
    users = sorted({u for u, _ in pairs_in(batch)})
    items = sorted({data.num_users + i for _, i in pairs_in(batch)})
    return sum(slow_info_nce(first, second, nodes, temperature) for nodes in (users, items))


# ---------------------------------------------------------------------------------------------- all


@pytest.mark.parametrize("name", CONTRASTIVE)
@pytest.mark.parametrize("kind", ["users", "pairs"])
def test_the_contrast_is_there_in_training_only(name, kind, tiny):
    model, batch = build(name, tiny), batch_of(tiny, kind)
    assert "contrast" in model(batch).aux
    assert model.eval()(batch).aux == {}


@pytest.mark.parametrize("name", CONTRASTIVE)
def test_the_weight_multiplies_the_contrast(name, tiny):
    batch, values = batch_of(tiny, "pairs"), []
    for weight in (0.0, 1.0, 3.0):
        model = build(name, tiny, weight=weight)
        torch.manual_seed(5)
        values.append(model(batch).aux["contrast"].item())
    assert values[0] == 0 and values[1] != 0
    assert values[2] == pytest.approx(3 * values[1], rel=1e-12)


@pytest.mark.parametrize("name", CONTRASTIVE)
@pytest.mark.parametrize("kind", ["users", "pairs"])
def test_every_parameter_gets_a_finite_gradient_from_the_contrast(name, kind, tiny):
    """Item 29 has no edge and user 0 a single one."""
    model = build(name, tiny, double=False)
    model(batch_of(tiny, kind)).aux["contrast"].backward()
    for parameter in model.parameters():
        assert torch.isfinite(parameter.grad).all() and parameter.grad.any()


@pytest.mark.parametrize("name", CONTRASTIVE)
@pytest.mark.parametrize("objective", [SOFTMAX, BPR], ids=["softmax", "bpr"])
@pytest.mark.parametrize("cosine", [False, True])
def test_training_lowers_the_ranking_loss(name, objective, cosine, tiny):
    if objective is SOFTMAX:
        batches = UserBatches(tiny.train, 40, 0)
    else:
        batches = PairBatches(tiny.train, 40, 0, negatives=1, popular=False)
    torch.manual_seed(0)
    model = REGISTRY[name](tiny.train, REGISTRY[name].Config(dim=8, cosine=cosine))
    config = FitConfig(epochs=8, learning_rate=0.05, device="cpu", progress=False)
    history = fit(model, batches, objective, config)
    first, last = (history[at]["terms"][objective.name] for at in (0, -1))
    assert last < first - 0.02
    assert all(math.isfinite(value) for entry in history for value in entry["terms"].values())


@pytest.mark.parametrize("name", ["sgl", "simgcl", "xsimgcl", "cgi"])
def test_a_resumed_run_draws_what_the_unbroken_run_drew(name, tiny, tmp_path):
    def train(stop=None):
        def callback(entry):
            if entry["epoch"] == stop:
                raise KeyboardInterrupt

        torch.manual_seed(0)
        model = REGISTRY[name](tiny.train, REGISTRY[name].Config(dim=4, layers=2))
        batches = PairBatches(tiny.train, 40, 0, negatives=1, popular=False)
        config = FitConfig(
            epochs=6,
            learning_rate=0.05,
            validate_every=2,
            monitor="ndcg@5",
            device="cpu",
            progress=False,
            checkpoint=tmp_path / "run.ckpt",
        )
        history = fit(
            model,
            batches,
            BPR,
            config,
            validate=lambda model: evaluate(model, tiny, (5,), "valid")[0],
            callbacks=[callback],
        )
        return [entry["terms"] for entry in history], model.state_dict()

    whole = train()
    (tmp_path / "run.ckpt").unlink()  # of training that has ended, kept for its caller
    with pytest.raises(KeyboardInterrupt):
        train(stop=3)
    assert (tmp_path / "run.ckpt").exists()
    resumed = train()
    assert resumed[0] == whole[0]
    assert all(torch.equal(resumed[1][key], value) for key, value in whole[1].items())


def test_only_directau_is_a_whole_objective():
    assert [name for name in REGISTRY if REGISTRY[name].own_loss] == ["directau"]


@pytest.mark.parametrize("name", ["mf", "lightgcn", *CONTRASTIVE])
def test_cosine_scores_by_the_angle(name, tiny):
    users = Query(torch.arange(tiny.num_users), tiny.train.history_UT)
    plain, angle = (build(name, tiny, cosine=c).eval() for c in (False, True))
    query_BD, item_ND = (x.tolist() for x in plain.embed(users))
    score_BN = angle.score(users)
    for row, query in enumerate(query_BD):
        for column, item in enumerate(item_ND):
            wanted = cosine(query, item) if any(item) else 0.0
            assert score_BN[row, column].item() == pytest.approx(wanted, abs=1e-9)


# ---------------------------------------------------------------------------------------------- SGL


def cuts(data, model, seed):
    """Two views: the edges that each layer keeps, with the model's draws drawn again."""
    torch.manual_seed(seed)
    edges, ratio, layers = edges_of(data), model.config.ratio, model.config.layers
    views = []
    for _ in range(2):
        kept = []
        for _ in range(layers if model.config.augmentation == "random_walk" else 1):
            if model.config.augmentation == "node_drop":
                drawn = torch.rand(data.num_users + data.num_items).tolist()
                kept.append([(u, i) for u, i in edges if min(drawn[u], drawn[i]) >= ratio])
            else:
                drawn = torch.rand(len(edges)).tolist()
                kept.append([edge for edge, x in zip(edges, drawn, strict=True) if x >= ratio])
        views.append(kept if len(kept) == layers else kept * layers)
    return views


@pytest.mark.parametrize("augmentation", ["node_drop", "edge_drop", "random_walk"])
@pytest.mark.parametrize("kind", ["users", "pairs"])
def test_sgl_contrasts_two_cut_graphs(augmentation, kind, tiny):
    model = build(
        "sgl", tiny, augmentation=augmentation, ratio=0.3, layers=2, weight=0.7, temperature=0.4
    )
    views = []
    for kept in cuts(tiny, model, seed=11):
        layers = [model.node_VD.tolist()]
        for edges in kept:
            layers.append(step(edges, layers[-1]))
        views.append(mean(layers))
    for ours, slow_VD in zip(model.views, views, strict=True):
        torch.testing.assert_close(model.mean_of_layers(ours), slow_VD, rtol=0, atol=1e-6)
    batch = batch_of(tiny, kind)
    slow = 0.7 * slow_contrast(tiny, batch, *views, temperature=0.4)
    assert model(batch).aux["contrast"].item() == pytest.approx(slow, abs=1e-6)


def test_sgl_cuts_anew_for_every_layer_of_a_random_walk_only(tiny):
    for augmentation, different in [("node_drop", 2), ("edge_drop", 2), ("random_walk", 6)]:
        model = build("sgl", tiny, augmentation=augmentation, ratio=0.5)
        graphs = {
            tuple(adjacency_VV.to_dense().flatten().tolist())
            for view in model.views
            for adjacency_VV in view
        }
        assert len(graphs) == different


@pytest.mark.parametrize("augmentation", ["node_drop", "edge_drop", "random_walk"])
def test_sgl_that_drops_nothing_sees_lightgcn_twice(augmentation, tiny):
    model = build("sgl", tiny, augmentation=augmentation, ratio=0.0)
    lightgcn = build("lightgcn", tiny)
    assert torch.equal(lightgcn.node_VD, model.node_VD)
    for view in model.views:
        torch.testing.assert_close(model.mean_of_layers(view), lightgcn.propagated())


@pytest.mark.parametrize("augmentation", ["node_drop", "edge_drop", "random_walk"])
@pytest.mark.parametrize("ratio", [0.95, 1.0])
def test_sgl_stays_finite_where_all_edges_of_a_node_are_dropped(augmentation, ratio, tiny):
    model = build("sgl", tiny, augmentation=augmentation, ratio=ratio, double=False)
    edges = sum(adjacency_VV.values().numel() for adjacency_VV in model.views[0])
    assert edges < 3 * 2 * len(tiny.train) / 4
    term = model(batch_of(tiny, "users")).aux["contrast"]
    (g_VD,) = torch.autograd.grad(term, model.node_VD)
    assert torch.isfinite(term) and torch.isfinite(g_VD).all()


def test_sgl_draws_the_graphs_of_an_epoch_from_the_seed_alone(tiny):
    """Whatever was drawn before, and whatever the weights are; another epoch has other graphs."""
    first, second = build("sgl", tiny), REGISTRY["sgl"](tiny.train)
    torch.rand(17)
    drawn = {}
    for name, model, seed in [("first", first, 3), ("resumed", second, 3), ("next", second, 4)]:
        torch.manual_seed(seed)
        model.on_epoch_start(seed)
        drawn[name] = [view[0].to_dense().float() for view in model.views]
    assert all(map(torch.equal, drawn["first"], drawn["resumed"]))
    assert not any(map(torch.equal, drawn["resumed"], drawn["next"]))
    assert not torch.equal(*drawn["next"])


def test_sgl_ranks_on_the_whole_graph(tiny):
    batch = batch_of(tiny, "pairs")
    model, lightgcn = build("sgl", tiny, ratio=0.9), build("lightgcn", tiny)
    torch.testing.assert_close(model(batch).logits, lightgcn(batch).logits)


# --------------------------------------------------------------------------------- SimGCL, XSimGCL


def noisy_layers(data, model):
    """Layers 1 .. L as lists, with the next draws of torch's generator."""
    rows, layers = model.node_VD.tolist(), []
    for _ in range(model.config.layers):
        rows = step(edges_of(data), rows)
        for row, draw in zip(rows, torch.rand_like(model.node_VD).tolist(), strict=True):
            length = math.sqrt(sum(x * x for x in draw))
            for d, x in enumerate(draw):
                sign = (row[d] > 0) - (row[d] < 0)
                row[d] += model.config.eps * sign * x / length
        layers.append(rows)
    return layers


@pytest.mark.parametrize("kind", ["users", "pairs"])
def test_simgcl_contrasts_two_noisy_means_without_layer_0(kind, tiny):
    model = build("simgcl", tiny, layers=2, eps=0.3, weight=0.7, temperature=0.4)
    torch.manual_seed(5)
    views = [mean(noisy_layers(tiny, model)) for _ in range(2)]
    batch = batch_of(tiny, kind)
    slow = 0.7 * slow_contrast(tiny, batch, *views, temperature=0.4)
    torch.manual_seed(5)
    assert model(batch).aux["contrast"].item() == pytest.approx(slow, abs=1e-6)


def test_simgcl_ranks_by_the_clean_mean_of_layers_1_to_l(tiny):
    model, batch = build("simgcl", tiny, layers=2, eps=0.3), batch_of(tiny, "pairs")
    first = step(edges_of(tiny), model.node_VD.tolist())
    clean_VD = mean([first, step(edges_of(tiny), first)])
    torch.testing.assert_close(model.propagated(), clean_VD, rtol=0, atol=1e-6)
    user_UD, item_ND = clean_VD.split([tiny.num_users, tiny.num_items])
    wanted_BN = user_UD[batch.user] @ item_ND.T
    for output in (model(batch), model.eval()(batch)):
        torch.testing.assert_close(
            output.logits, wanted_BN.gather(1, batch.items), rtol=0, atol=1e-6
        )


def test_noise_has_length_eps_and_stays_in_the_orthant(tiny):
    model = build("simgcl", tiny, layers=1, eps=0.3)
    (clean_VD,), (noisy_VD,) = model.layers_from_1(0.0), model.layers_from_1(0.3)
    length_V = (noisy_VD - clean_VD).norm(dim=1)
    alone = tiny.num_users + 29  # no edge: a zero vector has no orthant, and gets no noise
    assert length_V[alone] == 0
    torch.testing.assert_close(length_V[:alone], torch.full_like(length_V[:alone], 0.3))
    assert torch.equal(noisy_VD.sign(), clean_VD.sign())


def test_simgcl_without_noise_compares_a_view_with_itself(tiny):
    model, batch = build("simgcl", tiny, eps=0.0, weight=1.0), batch_of(tiny, "users")
    clean_VD = model.propagated()
    slow = slow_contrast(tiny, batch, clean_VD, clean_VD, temperature=0.2)
    assert model(batch).aux["contrast"].item() == pytest.approx(slow, abs=1e-6)


@pytest.mark.parametrize("contrast_layer", [1, 3])
@pytest.mark.parametrize("kind", ["users", "pairs"])
def test_xsimgcl_ranks_and_contrasts_in_one_noisy_pass(contrast_layer, kind, tiny):
    model = build(
        "xsimgcl",
        tiny,
        layers=3,
        eps=0.3,
        weight=0.7,
        temperature=0.4,
        contrast_layer=contrast_layer,
    )
    torch.manual_seed(5)
    layers = noisy_layers(tiny, model)
    mean_VD, batch = mean(layers), batch_of(tiny, kind)
    layer_VD = torch.tensor(layers[contrast_layer - 1])
    slow = 0.7 * slow_contrast(tiny, batch, mean_VD, layer_VD, temperature=0.4)
    torch.manual_seed(5)
    output = model(batch)
    assert output.aux["contrast"].item() == pytest.approx(slow, abs=1e-6)
    user_UD, item_ND = mean_VD.split([tiny.num_users, tiny.num_items])
    torch.testing.assert_close(output.query, user_UD[batch.user], rtol=0, atol=1e-6)
    torch.testing.assert_close(output.item, item_ND, rtol=0, atol=1e-6)
    torch.testing.assert_close(model.eval()(batch).item, model.propagated()[tiny.num_users :])


def test_xsimgcl_without_noise_trains_its_clean_mean(tiny):
    model, batch = build("xsimgcl", tiny, eps=0.0, weight=0.0), batch_of(tiny, "pairs")
    training = model(batch)
    assert training.aux["contrast"] == 0
    assert torch.equal(training.logits, model.eval()(batch).logits)


def test_xsimgcl_with_one_layer_compares_a_view_with_itself(tiny):
    model, batch = build("xsimgcl", tiny, layers=1, weight=1.0, eps=0.3), batch_of(tiny, "users")
    torch.manual_seed(5)
    view_VD = torch.tensor(noisy_layers(tiny, model)[0])
    torch.manual_seed(5)
    slow = slow_contrast(tiny, batch, view_VD, view_VD, temperature=0.2)
    assert model(batch).aux["contrast"].item() == pytest.approx(slow, abs=1e-6)


# ----------------------------------------------------------------------------------------- DirectAU


@pytest.mark.parametrize("layers", [0, 2])
@pytest.mark.parametrize("kind", ["users", "pairs"])
def test_directau_is_alignment_plus_gamma_uniformity(layers, kind, tiny):
    model, batch = (
        build("directau", tiny, layers=layers, gamma=0.6, weight=0.7),
        batch_of(tiny, kind),
    )
    steps = [model.node_VD.tolist()]
    for _ in range(layers):
        steps.append(step(edges_of(tiny), steps[-1]))
    node = mean(steps).tolist()
    pairs = pairs_in(batch)

    def apart(v, w):  # squared distance of two unit vectors
        return 2 - 2 * cosine(node[v], node[w])

    def spread(nodes):
        others = [(a, b) for a in range(len(nodes)) for b in range(len(nodes)) if a != b]
        kernel = sum(math.exp(-2 * apart(nodes[a], nodes[b])) for a, b in others)
        return math.log(kernel / len(others))

    aligned = sum(apart(u, tiny.num_users + i) for u, i in pairs) / len(pairs)
    users, items = spread(batch.user.tolist()), spread([tiny.num_users + i for _, i in pairs])
    slow = 0.7 * (aligned + 0.6 * (users + items) / 2)
    assert model(batch).aux["contrast"].item() == pytest.approx(slow, abs=1e-6)


def test_directau_without_layers_scores_as_matrix_factorisation(tiny):
    model, batch = build("directau", tiny), batch_of(tiny, "pairs")
    user_UD, item_ND = model.node_VD.split([tiny.num_users, tiny.num_items])
    wanted_BN = user_UD[batch.user] @ item_ND.T
    torch.testing.assert_close(model(batch).logits, wanted_BN.gather(1, batch.items))


def test_directau_learns_from_its_own_term_alone(checkerboard):
    torch.manual_seed(0)
    config = REGISTRY["directau"].Config(dim=4, gamma=0.2)
    model = REGISTRY["directau"](checkerboard.train, config)
    nothing = Objective("nothing", lambda output, batch: output.query.new_zeros(()))
    batches = PairBatches(checkerboard.train, 45, 0, negatives=1, popular=False)
    fit(
        model,
        batches,
        nothing,
        FitConfig(epochs=60, learning_rate=0.03, device="cpu", progress=False),
    )
    score_BN = model.score(Query(torch.arange(20)))
    same_BN = (torch.arange(20)[:, None] + torch.arange(20)) % 2 == 0
    assert (score_BN * same_BN).sum(1).div(10).gt((score_BN * ~same_BN).sum(1).div(10) + 0.1).all()


# ---------------------------------------------------------------------------------------------- CGI


def concrete(logits, temperature, draws=None):
    """Gates from logits, with uniform draws kept off 0 and 1 by 1e-4, or none."""
    gates = []
    for e, logit in enumerate(logits):
        if draws is not None:
            x = min(max(draws[e], 1e-4), 1 - 1e-4)
            logit += math.log(x) - math.log(1 - x)
        gates.append(1 / (1 + math.exp(-logit / temperature)))
    return gates


def affine(layer, row):
    """W row + b; b = 0 where there is none."""
    bias = [0.0] * len(layer.weight) if layer.bias is None else layer.bias.tolist()
    return [
        b + sum(w * x for w, x in zip(weights, row, strict=True))
        for weights, b in zip(layer.weight.tolist(), bias, strict=True)
    ]


def slow_views(data, model):
    """The three views of CGI, each (V, D), with the next draws of torch's generator."""
    edges, size = edges_of(data), data.num_users + data.num_items
    walk_VV = model.walk_VV.to_dense().tolist()
    whole = edge = node = model.node_VD.tolist()
    means = [[whole], [edge], [node]]
    for edge_logit, node_logit in zip(model.edge_gates, model.node_gates, strict=True):
        whole = step(edges, whole)
        logits = []
        for u, i in edges:
            from_user, from_item = (
                affine(edge_logit.user, whole[u]),
                affine(edge_logit.item, whole[i]),
            )
            hidden = [max(0.0, a + b) for a, b in zip(from_user, from_item, strict=True)]
            logits += affine(edge_logit.out, hidden)
        draws = torch.rand(len(edges), dtype=torch.float64).tolist() if model.training else None
        edge = step(edges, edge, concrete(logits, model.config.gate_temperature, draws))
        logits = []
        for row in whole:
            hidden = [max(0.0, x) for x in affine(node_logit[0], row)]
            logits += affine(node_logit[2], hidden)
        draws = torch.rand(size, dtype=torch.float64).tolist() if model.training else None
        gates = concrete(logits, model.config.gate_temperature, draws)
        mixed = [
            [
                gates[v] * node[v][d]
                + (1 - gates[v]) * sum(walk_VV[v][w] * node[w][d] for w in range(size))
                for d in range(len(node[v]))
            ]
            for v in range(size)
        ]
        node = step(edges, mixed)
        for layers, layer in zip(means, (whole, edge, node), strict=True):
            layers.append(layer)
    return [mean(layers) for layers in means]


@pytest.mark.parametrize("training", [True, False])
def test_cgi_gates_edges_and_nodes_by_their_mlps(training, tiny):
    model = build("cgi", tiny, layers=2, gate_temperature=0.6, walk=3).train(training)
    torch.manual_seed(5)
    slow = slow_views(tiny, model)
    torch.manual_seed(5)
    views = model.views()
    for ours_VD, slow_VD in zip(views, slow, strict=True):
        torch.testing.assert_close(ours_VD, slow_VD, rtol=0, atol=1e-6)
    torch.testing.assert_close(views[0], build("lightgcn", tiny, layers=2).propagated())


@pytest.mark.parametrize("kind", ["users", "pairs"])
def test_cgi_ranks_with_each_view_and_repels_it_from_the_whole_graph(kind, tiny):
    model = build(
        "cgi",
        tiny,
        layers=2,
        weight=0.7,
        temperature=0.4,
        rank_weight=0.3,
        rank_temperature=0.5,
    )
    batch = batch_of(tiny, kind)
    torch.manual_seed(5)
    whole_VD, *others = slow_views(tiny, model)
    repelled = sum(slow_contrast(tiny, batch, v, whole_VD, temperature=0.4) for v in others)
    ranked = 0.0
    for view_VD in others:
        user_UD, item_ND = view_VD.split([tiny.num_users, tiny.num_items])
        score_BN = (user_UD[batch.user] @ item_ND.T).tolist()
        terms = []
        for row, score in enumerate(score_BN):
            if batch.items is None:
                total = sum(math.exp(s / 0.5) for s in score)
                for item in [i for i in batch.target[row].tolist() if i >= 0]:
                    terms.append(math.log(total) - score[item] / 0.5)
            else:
                positive, *negatives = (score[i] for i in batch.items[row].tolist())
                terms += [math.log1p(math.exp(n - positive)) for n in negatives]
        ranked += sum(terms) / len(terms)
    torch.manual_seed(5)
    output = model(batch)
    assert output.aux["contrast"].item() == pytest.approx(-0.7 * repelled, abs=1e-6)
    assert output.aux["views"].item() == pytest.approx(0.3 * ranked, abs=1e-6)
    # What is served, and what the loss chosen outside trains, is the sum of the three scores.
    wanted_BN = sum(v[batch.user] @ v[tiny.num_users :].T for v in (whole_VD, *others))
    torch.testing.assert_close(output.query @ output.item.T, wanted_BN, rtol=0, atol=1e-6)


def test_cgi_with_open_gates_sees_the_whole_graph_and_with_closed_ones_none_of_it(tiny):
    model = build("cgi", tiny, layers=2).eval()
    lightgcn = build("lightgcn", tiny, layers=2)
    for logit in (1e3, -1e3):
        with torch.no_grad():
            for gate in (*(g.out for g in model.edge_gates), *(g[2] for g in model.node_gates)):
                gate.weight.zero_()
                gate.bias.fill_(logit)
        whole_VD, edge_VD, node_VD = model.views()
        torch.testing.assert_close(whole_VD, lightgcn.propagated())
        if logit > 0:
            torch.testing.assert_close(edge_VD, whole_VD)
            torch.testing.assert_close(node_VD, whole_VD)
    torch.testing.assert_close(edge_VD, model.node_VD / 3)
    walk_VV, adjacency_VV = model.walk_VV.to_dense(), model.adjacency_VV.to_dense()
    first_VD = adjacency_VV @ walk_VV @ model.node_VD
    second_VD = adjacency_VV @ walk_VV @ first_VD
    torch.testing.assert_close(node_VD, (model.node_VD + first_VD + second_VD) / 3)


def test_cgi_gradients_are_those_of_finite_differences(tiny):
    """Of the whole objective, along a random direction in each parameter, with the draws fixed."""
    model, batch = build("cgi", tiny, layers=2, weight=0.5), batch_of(tiny, "users")

    def loss():
        torch.manual_seed(5)
        output = model(batch)
        return losses.softmax(output.distribution, output.target) + sum(output.aux.values())

    model.zero_grad()
    loss().backward()
    for name, parameter in model.named_parameters():
        torch.manual_seed(6)
        direction = torch.randn_like(parameter)
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter += sign * 1e-5 * direction
                values.append(loss().item())
                parameter -= sign * 1e-5 * direction
        slope = (values[0] - values[1]) / 2e-5
        ours = (parameter.grad * direction).sum().item()
        assert ours == pytest.approx(slope, rel=1e-5, abs=1e-8), name


def test_the_walks_of_cgi_belong_to_the_graph_and_not_to_the_run(tiny):
    first, second = (REGISTRY["cgi"](tiny.train) for _ in range(2))
    assert not torch.equal(first.node_VD, second.node_VD)
    assert torch.equal(first.walk_VV.to_dense(), second.walk_VV.to_dense())


def test_the_noise_of_the_gates_is_finite_in_half_precision(tiny):
    model = build("cgi", tiny, double=False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(batch_of(tiny, "users"))
    assert all(torch.isfinite(term) for term in output.aux.values())
    model = build("cgi", tiny, double=False, gate_temperature=1.0)
    gate = model.gate(torch.zeros(100_000, dtype=torch.bfloat16))
    assert gate.dtype == torch.float32 and 0 < gate.min() and gate.max() < 1


def test_a_batch_of_pairs_may_name_one_user_and_one_item_only(tiny):
    """InfoNCE over one row is 0, and uniformity has no pairs: nothing breaks."""
    batch = Batch(
        torch.tensor([4, 4]),
        tiny.train.history_UT[[4, 4]],
        items=torch.tensor([[1, 2], [1, 3]]),
        target=torch.zeros(2, dtype=torch.int64),
    )
    for name in CONTRASTIVE:
        terms = build(name, tiny)(batch).aux
        assert all(torch.isfinite(term) for term in terms.values())
