"""Click-through models: one contract for all, and each against its own equation, written slowly.

Shape letters: B rows, F fields, D embedding size, V values of all fields, N items.
"""

import math
from dataclasses import replace
from itertools import combinations

import pytest
import sympy as sp
import torch

from inforec import losses
from inforec import symbolic as sym
from inforec.batches import ImpressionBatches
from inforec.distribution import ItemDistribution
from inforec.evaluate import evaluate_clicks
from inforec.layers import CrossProducts, FieldEmbedding, interaction, take_rows
from inforec.models import REGISTRY, ClickModel
from inforec.models.context.din import Dice
from inforec.models.context.ffm import FieldPairs
from inforec.train import FitConfig, Objective, fit
from inforec.types import PAD, Batch, Impressions

MODELS = sorted(name for name in REGISTRY if issubclass(REGISTRY[name], ClickModel))
SMALL = {
    "lr": {},
    "poly2": {"buckets": 0},
    "fm": {"dim": 4},
    "ffm": {"dim": 2},
    "nfm": {"dim": 4, "hidden": 8},
    "widedeep": {"dim": 4, "hidden": 8, "layers": 2, "most_pairs": 60},
    "deepfm": {"dim": 4, "hidden": 8, "layers": 2},
    "din": {"history": 3, "dim": 4, "attention": 5, "hidden": 8},
    "bst": {"history": 3, "dim": 4, "heads": 2, "hidden": 8},
}
BAD_OPTIONS = [
    ("poly2", "buckets", -1),
    ("fm", "dim", 0),
    ("ffm", "dim", 1.5),
    ("nfm", "dim", 0),
    ("nfm", "hidden", 0),
    ("nfm", "layers", -1),
    ("nfm", "dropout", 1.5),
    ("widedeep", "dim", 0),
    ("widedeep", "hidden", 0),
    ("widedeep", "layers", -1),
    ("widedeep", "dropout", -0.1),
    ("widedeep", "most_pairs", -1),
    ("deepfm", "dim", 0),
    ("deepfm", "hidden", 0),
    ("deepfm", "layers", -1),
    ("deepfm", "dropout", 2),
    ("din", "history", 0),
    ("din", "dim", 0),
    ("din", "attention", 0),
    ("din", "hidden", 0),
    ("din", "layers", -1),
    ("din", "dropout", 2),
    ("din", "penalty", -1.0),
    ("bst", "history", 0),
    ("bst", "dim", 0),
    ("bst", "heads", 0),
    ("bst", "heads", 5),
    ("bst", "hidden", 0),
    ("bst", "layers", -1),
    ("bst", "dropout", 2),
]


def build(name, train, seed=0, *, spread=0.5, **options):
    """The model in float64, with no parameter at 0 but those of unseen values."""
    torch.manual_seed(seed)
    model = REGISTRY[name](train, REGISTRY[name].Config(**{**SMALL[name], **options})).double()
    with torch.no_grad():
        for module in model.modules():
            own = list(module.parameters(recurse=False))
            for parameter in own:
                parameter.copy_(torch.randn_like(parameter) * spread)
            if isinstance(module, FieldEmbedding):
                module.value_VD[module.first_F] = 0.0
    return model.eval()


def everything(train):
    return train.rows(slice(None))


# ---- the contract -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_the_output_is_one_logit_a_row_with_a_bernoulli_law(name, impressions):
    batch = everything(impressions)
    output = build(name, impressions)(batch)
    assert output.logits.shape == (240,) and output.logits.isfinite().all()
    assert output.law == "bernoulli" and not output.complete and output.distribution is None
    assert torch.equal(output.target, impressions.label)
    assert output.logits.unique().numel() > 20


@pytest.mark.parametrize("name", MODELS)
def test_a_batch_equals_its_rows_one_by_one(name, impressions):
    model = build(name, impressions)
    together = model(everything(impressions)).logits
    for row in range(0, 240, 7):
        alone = model(impressions.rows(slice(row, row + 1))).logits
        torch.testing.assert_close(alone, together[row : row + 1])


@pytest.mark.parametrize("name", MODELS)
def test_the_order_of_several_values_and_their_padding_say_nothing(name, impressions):
    model, batch = build(name, impressions), everything(impressions)
    plain = model(batch).logits
    batch.fields["tags"] = torch.cat([batch.fields["tags"].flip(1), torch.full((240, 1), PAD)], 1)
    torch.testing.assert_close(model(batch).logits, plain)


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_gets_a_gradient_and_unseen_values_get_none(name, impressions):
    model = build(name, impressions)
    output = model(everything(impressions))
    losses.binary_cross_entropy(output.logits, output.target.double()).backward()
    missing = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert missing == []
    tables = [m for m in model.modules() if isinstance(m, FieldEmbedding)]
    assert tables
    for table in tables:
        # Of the other fields, no training row has a value unseen.
        unseen = table.first_F[[table.names.index(name) for name in ("user", "item")]]
        assert not table.value_VD.grad[unseen].any()


@pytest.mark.parametrize("name", [name for name in MODELS if name != "lr"])
def test_it_learns_an_interaction_that_no_single_field_tells(name, impressions):
    torch.manual_seed(0)
    model = REGISTRY[name](impressions, REGISTRY[name].Config(**SMALL[name]))
    objective = Objective(
        "logistic", lambda output, batch: losses.binary_cross_entropy(output.logits, batch.target)
    )
    config = FitConfig(epochs=60, learning_rate=0.03, device="cpu", progress=False)
    fit(model, ImpressionBatches(impressions, 64, 0), objective, config)
    metrics, _ = evaluate_clicks(model, impressions)
    assert metrics["auc"] > 0.85
    linear = REGISTRY["lr"](impressions)
    fit(linear, ImpressionBatches(impressions, 64, 0), objective, config)
    assert evaluate_clicks(linear, impressions)[0]["auc"] < 0.75


@pytest.mark.parametrize("name", MODELS)
def test_saved_weights_give_the_same_logits_and_the_seed_decides(name, impressions, tmp_path):
    model, again, other = (build(name, impressions, seed) for seed in (0, 0, 1))
    batch = everything(impressions)
    expected = model(batch).logits
    assert torch.equal(again(batch).logits, expected)
    assert not torch.equal(other(batch).logits, expected)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert torch.equal(other(batch).logits, expected)


@pytest.mark.parametrize("name", MODELS)
def test_a_law_over_the_catalogue_is_the_softmax_of_each_rows_logits(name, impressions):
    model = build(name, impressions)
    query = impressions.rows(torch.tensor([0, 31, 90]))
    query.fields = {"user": query.fields["user"], "hour": query.fields["hour"]}
    items = {
        "item": torch.tensor([3, 1, 7, 0]),
        "tags": torch.tensor([[1, -1], [2, 3], [4, 1], [-1, -1]]),
    }
    law = model.law(query, items)
    assert law.complete and law.num_items == 4
    slow_BN = torch.zeros(3, 4, dtype=torch.float64)
    for b in range(3):
        for n in range(4):
            fields = {key: x[b : b + 1] for key, x in query.fields.items()}
            fields |= {key: x[n : n + 1] for key, x in items.items()}
            history = query.history[b : b + 1]
            slow_BN[b, n] = model(Batch(query.user[b : b + 1], history, fields=fields)).logits[0]
    every_BN = torch.arange(4).expand(3, -1)
    torch.testing.assert_close(law.log_prob(every_BN), slow_BN.log_softmax(1))
    torch.testing.assert_close(law.entropy(), ItemDistribution.from_logits(slow_BN).entropy())


@pytest.mark.parametrize("name, option, value", BAD_OPTIONS)
def test_a_bad_option_is_named(name, option, value):
    with pytest.raises(ValueError, match=f"{option}={value!r}"):
        REGISTRY[name].Config(**{option: value})


@pytest.mark.parametrize("name", MODELS)
def test_an_unknown_option_is_an_error_and_options_are_frozen(name):
    with pytest.raises(TypeError):
        REGISTRY[name].Config(nonsense=1)
    for option in REGISTRY[name].Config.__dataclass_fields__:
        with pytest.raises(AttributeError):
            setattr(REGISTRY[name].Config(), option, 3)


# ---- the layers ---------------------------------------------------------------------------------


def values_of(batch, name, row):
    """The numbers of a field's values in one row, padding left out."""
    numbers = batch.fields[name][row].reshape(-1).tolist()
    return [number for number in numbers if number != PAD]


def mean_vector(table, batch, name, row):
    """The mean of the vectors of a row's values as a list; zeros if there are none."""
    first = int(table.first_F[table.names.index(name)])
    rows = [table.value_VD[first + number].tolist() for number in values_of(batch, name, row)]
    width = table.value_VD.shape[1]
    return [sum(r[d] for r in rows) / max(1, len(rows)) for d in range(width)]


def first_order(model, batch, row):
    weight = model.linear.weight
    return model.linear.bias.item() + sum(
        mean_vector(weight, batch, name, row)[0] for name in weight.names
    )


def test_fields_stand_with_those_of_several_values_last(impressions):
    layer = FieldEmbedding(impressions, 3)
    assert layer.names == ["user", "item", "hour", "tags"] and layer.sizes == [13, 11, 4, 5]
    assert layer.first_F.tolist() == [0, 13, 24, 28] and len(layer.value_VD) == 33
    assert not layer.value_VD[layer.first_F].any() and layer.value_VD[1:13].all()


@pytest.mark.parametrize("few", [0, 64])
def test_field_embedding_is_the_mean_of_a_rows_values(few, impressions, monkeypatch):
    monkeypatch.setattr("inforec.layers.FEW", few)
    torch.manual_seed(0)
    layer, batch = FieldEmbedding(impressions, 3).double(), everything(impressions)
    vector_BFD = layer(batch.fields)
    for row in range(0, 240, 5):
        for place, name in enumerate(layer.names):
            slow = mean_vector(layer, batch, name, row)
            assert vector_BFD[row, place].tolist() == pytest.approx(slow, abs=1e-12)
    assert not vector_BFD[5, 3].any()  # no tag


def test_the_vectors_of_one_field(impressions):
    layer = FieldEmbedding(impressions, 3)
    index = torch.tensor([[4, PAD], [1, 10]])
    chosen = layer.of("item", index)
    assert torch.equal(chosen[0, 0], layer.value_VD[13 + 4]) and not chosen[0, 1].any()
    assert torch.equal(chosen[1, 1], layer.value_VD[13 + 10])


def test_rows_of_a_table_and_their_gradient():
    table = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    index = torch.tensor([[0, 4], [4, 4]])
    assert torch.equal(take_rows(table, index), table[index])
    assert torch.autograd.gradcheck(lambda table: take_rows(table, index), (table,))


def slow_crosses(layer, batch, pairs, sizes, row):
    """The mean weight of the pairs of values of each pair of fields, summed; unseen ones are 0."""
    total, first = 0.0, 0
    for a, b in pairs:
        weights = []
        for i in values_of(batch, a, row):
            for j in values_of(batch, b, row):
                key = first + i * sizes[b] + j
                if layer.buckets:
                    key = key * 11400714819323198485 % 2**64 >> 32 & 0x7FFFFFFF
                    key %= layer.buckets
                weights.append(layer.weight_W1[key].item() if i > 0 and j > 0 else 0.0)
        total += sum(weights) / max(1, len(weights))
        first += sizes[a] * sizes[b]
    return total


@pytest.mark.parametrize("buckets", [0, 7, 1000])
def test_cross_products_have_a_weight_for_each_pair_of_values(buckets, impressions):
    torch.manual_seed(0)
    pairs = list(combinations(impressions.fields, 2))
    several = Impressions(
        impressions.user,
        {**impressions.fields, "more": impressions.fields["tags"].flip(0)},
        impressions.label,
        {**impressions.sizes, "more": 5},
    )
    pairs += [("tags", "more")]
    layer = CrossProducts(several, pairs, buckets).double()
    torch.nn.init.normal_(layer.weight_W1)
    batch = everything(several)
    cross_B = layer(batch.fields)
    for row in range(0, 240, 5):
        slow = slow_crosses(layer, batch, pairs, several.sizes, row)
        assert cross_B[row].item() == pytest.approx(slow, abs=1e-12)


def test_the_hash_spreads_pairs_evenly(impressions):
    layer = CrossProducts(impressions, [("user", "item")], 100)
    count = torch.bincount(layer.place(torch.arange(100_000)), minlength=100)
    assert count.min() > 800 and count.max() < 1200


# ---- the identity of the factorisation machine --------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 5])
def test_fm_identity_for_general_vectors(n):
    """sum over f < g of x_f x_g v_f . v_g = sum over d of ((sum x v)^2 - sum (x v)^2) / 2."""
    weight, dims = sym.symbols("x", n), 3
    vector = [sym.symbols(f"v{f}", dims) for f in range(n)]
    pairs = sum(
        weight[f] * weight[g] * sum(a * b for a, b in zip(vector[f], vector[g], strict=True))
        for f, g in combinations(range(n), 2)
    )
    fast = 0
    for d in range(dims):
        terms = [weight[f] * vector[f][d] for f in range(n)]
        fast += (sum(terms) ** 2 - sum(t**2 for t in terms)) / 2
    assert sp.expand(pairs - fast) == 0


def test_fm_identity_for_every_number_of_fields():
    """By induction: with one more field both sides grow by the same, and for none both are 0."""
    total, squares, new = sp.symbols("S Q t", real=True)  # sum, sum of squares, one more term

    def fast(total, squares):
        return (total**2 - squares) / 2

    grown = fast(total + new, squares + new**2) - fast(total, squares)
    assert sp.expand(grown - new * total) == 0 and fast(0, 0) == 0


def test_interaction_is_the_sum_over_pairs():
    torch.manual_seed(0)
    vector_BFD = torch.randn(4, 5, 3, dtype=torch.float64)
    slow_BD = sum(vector_BFD[:, f] * vector_BFD[:, g] for f, g in combinations(range(5), 2))
    torch.testing.assert_close(interaction(vector_BFD), slow_BD)
    assert torch.autograd.gradcheck(interaction, (vector_BFD.requires_grad_(),))


def test_the_gradient_of_field_pairs():
    vector_BFFD = torch.randn(4, 3, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(FieldPairs.apply, (vector_BFFD,))
    one_BFFD = torch.ones(2, 1, 1, 3)  # of one field there is no pair
    assert not FieldPairs.apply(one_BFFD).any() and one_BFFD.all()


# ---- the models ---------------------------------------------------------------------------------


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def relu(value, unit):
    return max(0.0, value)


def slow_mlp(layers, x, activation=relu):
    """Linear layers with an activation between, by loops."""
    linear = [m for m in layers if isinstance(m, torch.nn.Linear)]
    for number, layer in enumerate(linear):
        x = [
            dot(row, x) + bias
            for row, bias in zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)
        ]
        if number < len(linear) - 1:
            x = [activation(value, unit) for unit, value in enumerate(x)]
    (value,) = x
    return value


def slow_lr(model, batch, row, train):
    return first_order(model, batch, row)


def slow_poly2(model, batch, row, train):
    pairs = list(combinations(train.fields, 2))
    crosses = slow_crosses(model.pairs, batch, pairs, train.sizes, row)
    return first_order(model, batch, row) + crosses


def slow_fm_pairs(model, batch, row):
    names, total = model.vector.names, 0.0
    for f in range(len(names)):
        for g in range(f + 1, len(names)):
            e, h = (mean_vector(model.vector, batch, names[k], row) for k in (f, g))
            for d in range(len(e)):
                total += e[d] * h[d]
    return total


def slow_fm(model, batch, row, train):
    return first_order(model, batch, row) + slow_fm_pairs(model, batch, row)


def slow_ffm(model, batch, row, train):
    names, dim, total = model.vector.names, model.config.dim, first_order(model, batch, row)
    for f in range(len(names)):
        for g in range(f + 1, len(names)):
            e, h = (mean_vector(model.vector, batch, names[k], row) for k in (f, g))
            for d in range(dim):
                total += e[g * dim + d] * h[f * dim + d]
    return total


def slow_nfm(model, batch, row, train):
    vectors = [mean_vector(model.vector, batch, name, row) for name in model.vector.names]
    pooled = [0.0] * model.config.dim
    for e, h in combinations(vectors, 2):
        pooled = [p + a * b for p, a, b in zip(pooled, e, h, strict=True)]
    return first_order(model, batch, row) + slow_mlp(model.deep, pooled)


def deep(model, batch, row):
    vectors = [mean_vector(model.vector, batch, name, row) for name in model.vector.names]
    return slow_mlp(model.deep, [value for vector in vectors for value in vector])


def slow_widedeep(model, batch, row, train):
    crossed = [("user", "hour"), ("item", "tags"), ("item", "hour"), ("tags", "hour")]
    assert model.crosses.pairs == crossed  # at most 60 pairs of values each
    wide = slow_crosses(model.crosses, batch, crossed, train.sizes, row)
    return first_order(model, batch, row) + wide + deep(model, batch, row)


def slow_deepfm(model, batch, row, train):
    return slow_fm(model, batch, row, train) + deep(model, batch, row)


def sigmoid(value, unit=None):
    return 1 / (1 + math.exp(-value))


def item_vector(model, number):
    first = int(model.vector.first_F[model.vector.names.index("item")])
    return model.vector.value_VD[first + number].tolist()


def slow_din(model, batch, row, train):
    query, dim = item_vector(model, int(batch.fields["item"][row])), model.config.dim
    interest = [0.0] * dim
    for number in batch.history[row].tolist():
        if number == PAD:
            continue
        key = item_vector(model, number)
        pair = [*key, *query]
        pair += [k - q for k, q in zip(key, query, strict=True)]
        pair += [k * q for k, q in zip(key, query, strict=True)]
        weight = slow_mlp(model.unit, pair, sigmoid)
        interest = [s + weight * k for s, k in zip(interest, key, strict=True)]
    vectors = [mean_vector(model.vector, batch, name, row) for name in model.vector.names]
    slopes = iter([m.slope_H.tolist() for m in model.deep if isinstance(m, Dice)])
    current = []

    def dice(value, unit):  # untrained: mean 0 and variance 1
        if unit == 0:
            current[:] = next(slopes)
        gate = sigmoid(value / math.sqrt(1 + 1e-8))
        return gate * value + (1 - gate) * current[unit] * value

    inputs = [value for vector in vectors for value in vector] + interest
    return slow_mlp(model.deep, inputs, dice)


def slow_norm(layer, x):
    mean = sum(x) / len(x)
    variance = sum((v - mean) ** 2 for v in x) / len(x)
    weights = zip(x, layer.weight.tolist(), layer.bias.tolist(), strict=True)
    return [(v - mean) / math.sqrt(variance + layer.eps) * w + b for v, w, b in weights]


def leaky(value, unit=None):
    return value if value > 0 else 0.01 * value


def slow_bst(model, batch, row, train):
    """One block, unrolled place by place, head by head."""
    numbers = [*batch.history[row].tolist(), int(batch.fields["item"][row])]
    back, width, heads = model.back_SD.tolist(), 2 * model.config.dim, model.config.heads
    x = [
        None if number == PAD else item_vector(model, number) + back[place]
        for place, number in enumerate(numbers)
    ]
    w_q, w_k, w_v = (w.tolist() for w in model.qkv.weight.chunk(3))
    out, size = model.out.weight.tolist(), width // heads
    result = []
    for place in x:
        if place is None:
            result += [0.0] * width
            continue
        mixed = []
        for head in range(heads):
            part = range(head * size, (head + 1) * size)
            query = [dot(w_q[r], place) for r in part]
            there = [other for other in x if other is not None]
            logits = [
                dot(query, [dot(w_k[r], other) for r in part]) / math.sqrt(size) for other in there
            ]
            total = sum(math.exp(s) for s in logits)
            for r in part:
                value = [dot(w_v[r], other) for other in there]
                mixed.append(
                    sum(math.exp(s) / total * v for s, v in zip(logits, value, strict=True))
                )
        first = slow_norm(
            model.norms[0], [p + dot(r, mixed) for p, r in zip(place, out, strict=True)]
        )
        inner = [
            leaky(dot(r, first) + b)
            for r, b in zip(model.inner.weight.tolist(), model.inner.bias.tolist(), strict=True)
        ]
        outer = zip(first, model.outer.weight.tolist(), model.outer.bias.tolist(), strict=True)
        result += slow_norm(model.norms[1], [f + dot(r, inner) + b for f, r, b in outer])
    vectors = [mean_vector(model.vector, batch, name, row) for name in model.vector.names]
    inputs = [value for vector in vectors for value in vector] + result
    return slow_mlp(model.deep, inputs, leaky)


SLOW = {
    name.removeprefix("slow_"): value
    for name, value in list(globals().items())
    if name.startswith("slow_")
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_its_equation(name, impressions):
    model, batch = build(name, impressions), everything(impressions)
    logit_B = model(batch).logits
    for row in range(0, 240, 5):
        slow = SLOW[name](model, batch, row, impressions)
        assert logit_B[row].item() == pytest.approx(slow, abs=1e-10)


def test_hashed_pairs_of_poly2(impressions):
    model, batch = build("poly2", impressions, buckets=50), everything(impressions)
    assert model.pairs.weight_W1.shape == (50, 1)
    for row in (0, 5, 21):
        slow = slow_poly2(model, batch, row, impressions)
        assert model(batch).logits[row].item() == pytest.approx(slow, abs=1e-12)


def test_nfm_without_hidden_layer_and_with_ones_is_fm(impressions):
    nfm, fm = build("nfm", impressions, layers=0), build("fm", impressions)
    with torch.no_grad():
        nfm.deep[0].weight.fill_(1.0)
        nfm.deep[0].bias.zero_()
    nfm.linear.load_state_dict(fm.linear.state_dict())
    nfm.vector.load_state_dict(fm.vector.state_dict())
    batch = everything(impressions)
    torch.testing.assert_close(nfm(batch).logits, fm(batch).logits)


def test_deepfm_has_one_table_of_vectors_for_both_parts(impressions):
    model = build("deepfm", impressions)
    tables = [m for m in model.modules() if isinstance(m, FieldEmbedding)]
    assert len(tables) == 2 and model.linear.weight in tables and model.vector in tables


def test_an_unseen_value_leaves_the_decision_to_the_others(impressions):
    """With all but one field unseen, a factorisation machine is its bias and one weight."""
    model = build("fm", impressions)
    fields = {"user": torch.tensor([4]), "item": torch.tensor([0]), "hour": torch.tensor([0])}
    fields["tags"] = torch.tensor([[PAD, PAD]])
    logit = model(Batch(torch.tensor([0]), fields=fields)).logits.item()
    weight = model.linear.weight.value_VD[4].item()
    assert logit == pytest.approx(model.linear.bias.item() + weight, abs=1e-12)


@pytest.mark.parametrize("name", ["nfm", "widedeep", "deepfm", "din", "bst"])
def test_dropout_is_for_training_only(name, impressions):
    model, batch = build(name, impressions, dropout=0.5), everything(impressions)
    assert torch.equal(model(batch).logits, model(batch).logits)
    model.train()
    assert not torch.equal(model(batch).logits, model(batch).logits)


def test_without_crosses_wide_and_deep_is_linear_and_deep(impressions):
    model, batch = build("widedeep", impressions, most_pairs=0), everything(impressions)
    assert model.crosses is None
    slow = first_order(model, batch, 7) + deep(model, batch, 7)
    assert model(batch).logits[7].item() == pytest.approx(slow, abs=1e-12)


def test_logistic_loss_is_the_mean_negative_log_likelihood():
    logit, label = [2.0, -1.0, 0.5], [1.0, 0.0, 0.25]
    slow = 0.0
    for s, y in zip(logit, label, strict=True):
        p = 1 / (1 + math.exp(-s))
        slow -= (y * math.log(p) + (1 - y) * math.log(1 - p)) / 3
    value = losses.binary_cross_entropy(torch.tensor(logit), torch.tensor(label))
    assert value.item() == pytest.approx(slow, rel=1e-6)
    far = losses.binary_cross_entropy(torch.tensor([1000.0, -1000.0]), torch.tensor([0.0, 1.0]))
    assert far.item() == pytest.approx(1000.0)
    logit_B = torch.randn(5, dtype=torch.float64, requires_grad=True)
    label_B = torch.tensor([0, 1, 1, 0, 1], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: losses.binary_cross_entropy(s, label_B), (logit_B,))


# ---- histories ----------------------------------------------------------------------------------


def test_dice_standardises_by_the_batch_in_training():
    torch.manual_seed(0)
    layer, signal_BH = Dice(2).double(), torch.randn(50, 2, dtype=torch.float64) * 3 + 1
    with torch.no_grad():
        layer.slope_H.copy_(torch.tensor([0.25, -0.5]))
    found_BH = layer(signal_BH)
    for unit, slope in enumerate((0.25, -0.5)):
        column = signal_BH[:, unit].tolist()
        mean = sum(column) / 50
        deviation = math.sqrt(sum((s - mean) ** 2 for s in column) / 50 + 1e-8)
        for row, s in enumerate(column):
            gate = sigmoid((s - mean) / deviation)
            slow = gate * s + (1 - gate) * slope * s
            assert found_BH[row, unit].item() == pytest.approx(slow, abs=1e-12)


def test_dice_on_a_last_batch_of_one_row_uses_the_running_averages():
    torch.manual_seed(0)
    layer, row_BH = Dice(2).double(), torch.randn(1, 2, dtype=torch.float64)
    layer(torch.randn(50, 2, dtype=torch.float64) + 3)
    assert layer.norm.running_mean.min() > 0.2  # a tenth of the way to 3
    one = layer(row_BH)
    torch.testing.assert_close(one, layer.eval()(row_BH))


def test_din_does_not_see_the_order_of_a_history_and_bst_does(impressions):
    batch = everything(impressions)
    turned = everything(impressions)
    turned.history = batch.history.flip(1)
    din, bst = build("din", impressions), build("bst", impressions)
    torch.testing.assert_close(din(turned).logits, din(batch).logits)
    assert not torch.allclose(bst(turned).logits, bst(batch).logits)


@pytest.mark.parametrize("name", ["din", "bst"])
def test_a_history_counts_and_its_padding_does_not(name, impressions):
    model, batch = build(name, impressions), everything(impressions)
    plain = model(batch).logits
    emptied = everything(impressions)
    emptied.history = torch.full_like(batch.history, PAD)
    changed = ~torch.isclose(model(emptied).logits, plain)
    assert changed[batch.history[:, 2] != PAD].all() and not changed[3]  # row 3 has no history
    # What the padding would read, were it not left out, is of no matter.
    first = model.vector.first_F[model.vector.names.index("item")]
    with torch.no_grad():
        model.vector.value_VD[first] = 100.0
    kept = batch.fields["item"] != 0
    torch.testing.assert_close(model(batch).logits[kept], plain[kept])


def test_the_penalty_of_din_is_over_the_values_of_the_batch(impressions):
    model = build("din", impressions, penalty=0.3).train()
    batch = impressions.rows(slice(0, 9))
    penalty = model(batch).aux["penalty"]
    count, read = {}, set()
    for row in range(240):
        for name in model.vector.names:
            for number in values_of(everything(impressions), name, row):
                count[name, number] = count.get((name, number), 0) + 1
                if row < 9:
                    read.add((name, number))
    slow = 0.0
    for name, number in read:
        first = int(model.vector.first_F[model.vector.names.index(name)])
        vector = model.vector.value_VD[first + number].tolist()
        slow += 0.3 * dot(vector, vector) / count[name, number]
    assert penalty.item() == pytest.approx(slow, rel=1e-12)
    assert model.eval()(batch).aux == {}
    assert build("din", impressions).train()(batch).aux == {}


@pytest.mark.parametrize("name", ["din", "bst"])
def test_rows_must_carry_as_many_liked_items(name, impressions):
    with pytest.raises(ValueError, match=r"history=20: expected impressions .* found 3"):
        REGISTRY[name](impressions)
    with pytest.raises(ValueError, match=r"history=3: .* found None"):
        build(name, replace(impressions, history=None))
