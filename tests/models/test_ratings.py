"""Rating models: one contract for all, and each against its own equation, written slowly.

Shape letters: B rows.
"""

import math
from dataclasses import replace

import pytest
import torch

from inforec import losses
from inforec.batches import RatingBatches
from inforec.evaluate import evaluate_ratings
from inforec.models import REGISTRY, RatingModel
from inforec.train import FitConfig, Objective, fit
from inforec.types import Interactions

ACTIVATIONS = ("identity", "sigmoid")
MODELS = {
    "biasedmf": ("biasedmf", {"dim": 3}),
    **{
        f"{rows}: f {f}, g {g}": (
            "autorec",
            {"rows": rows, "hidden": 3, "output_activation": f, "hidden_activation": g},
        )
        for rows in ("item", "user")
        for f in ACTIVATIONS
        for g in ACTIVATIONS
    },
}
BAD_OPTIONS = [
    ("biasedmf", "dim", 0),
    ("biasedmf", "penalty", -0.1),
    ("autorec", "rows", "both"),
    ("autorec", "hidden", 2.5),
    ("autorec", "hidden_activation", "relu"),
    ("autorec", "output_activation", "tanh"),
    ("autorec", "penalty", math.nan),
]


@pytest.fixture(params=MODELS)
def model(request, ratings):
    """Float64, every parameter drawn anew."""
    name, options = MODELS[request.param]
    return build(name, ratings, **options)


def build(name, ratings, seed=0, **options):
    torch.manual_seed(seed)
    model = REGISTRY[name](ratings, REGISTRY[name].Config(**options)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
    return model.eval()


def everything(ratings):
    return ratings.rated(torch.arange(len(ratings)))


# ---- the contract -------------------------------------------------------------------------------


def test_the_contract_meets_every_rating_model():
    named = {name for name, _ in MODELS.values()}
    assert named == {name for name in REGISTRY if issubclass(REGISTRY[name], RatingModel)}


def test_the_output_is_one_number_a_row_with_a_gaussian_law(model, ratings):
    output = model(everything(ratings))
    assert output.logits.shape == (len(ratings),) and output.logits.isfinite().all()
    assert output.law == "gaussian" and not output.complete and output.distribution is None
    assert torch.equal(output.target, ratings.rating)
    assert output.logits.unique().numel() > 30


def test_a_batch_equals_its_rows_one_by_one(model, ratings):
    together = model.predict(ratings.user, ratings.item)
    for row in range(0, len(ratings), 5):
        alone = model.predict(ratings.user[row : row + 1], ratings.item[row : row + 1])
        torch.testing.assert_close(alone, together[row : row + 1])


def test_every_parameter_gets_a_gradient(model, ratings):
    output = model(everything(ratings))
    losses.squared_error(output.logits, output.target).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_saved_weights_give_the_same_ratings(model, ratings, tmp_path):
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    other = type(model)(ratings, model.config).double()
    assert not torch.equal(
        other.predict(ratings.user, ratings.item), model.predict(ratings.user, ratings.item)
    )
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert torch.equal(
        other.predict(ratings.user, ratings.item), model.predict(ratings.user, ratings.item)
    )


def test_every_model_learns_a_checkerboard(model):
    """Even users give even items 5, odd items 1: the withheld ratings follow."""
    size = 20
    user = torch.arange(size).repeat_interleave(size)
    item = torch.arange(size).repeat(size)
    rating = torch.where((user + item) % 2 == 0, 5.0, 1.0)
    held = (user * 7 + item * 3) % 11 == 0
    train, test = (
        Interactions(user[part], item[part], size, size, rating=rating[part])
        for part in (~held, held)
    )
    torch.manual_seed(1)
    fresh = type(model)(train, replace(model.config, penalty=1e-4))
    batches = RatingBatches(train, 120, 0, fresh.whole)
    objective = Objective("mse", lambda o, batch: losses.squared_error(o.logits, o.target))
    config = FitConfig(epochs=60, learning_rate=0.05, device="cpu", progress=False)
    fit(fresh, batches, objective, config)
    assert evaluate_ratings(fresh, test)[0]["rmse"] < 0.5


def test_ratings_stay_on_the_scale_and_the_unseen_get_its_middle(model, ratings):
    user_B, item_B = ratings.user, ratings.item
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5)
    predicted_B, rating_B = model.predict(user_B, item_B), model.rate(user_B, item_B)
    assert torch.equal(rating_B, predicted_B.clamp(1, 5))
    assert int(ratings.user_counts[11]) == int(ratings.item_counts[9]) == 0  # see the fixture
    for user, item in ((11, 3), (2, 9), (11, 9)):
        assert model.rate(torch.tensor([user]), torch.tensor([item])).tolist() == [3.0]


@pytest.mark.parametrize(("name", "option", "value"), BAD_OPTIONS)
def test_a_bad_option_is_named(name, option, value):
    with pytest.raises(ValueError, match=f"{option}={value!r}"):
        REGISTRY[name].Config(**{option: value})


# ---- the equations ------------------------------------------------------------------------------


def table(ratings):
    """{(user, item): rating}"""
    columns = (ratings.user.tolist(), ratings.item.tolist(), ratings.rating.tolist())
    return {(u, i): r for u, i, r in zip(*columns, strict=True)}


def act(name, x):
    return x if name == "identity" else 1 / (1 + math.exp(-x))


def slow_autorec(model, ratings, user, item):
    """One rating, unit by unit, from the observed entries of its row."""
    config, observed = model.config, table(ratings)
    V, mu = model.encoder_MH.tolist(), model.encoder_H.tolist()
    W, b = model.decoder_MH.tolist(), model.decoder_M.tolist()
    if config.rows == "item":
        row = {u: r for (u, i), r in observed.items() if i == item}
        column = user
    else:
        row = {i: r for (u, i), r in observed.items() if u == user}
        column = item
    total = b[column]
    for k in range(config.hidden):
        z = mu[k] + sum(V[m][k] * r for m, r in row.items())
        total += W[column][k] * act(config.hidden_activation, z)
    if config.output_activation == "identity":
        return sum(observed.values()) / len(observed) + total
    return 1 + 4 * act("sigmoid", total)


def slow_biasedmf(model, ratings, user, item):
    observed = table(ratings)
    p, q = model.user_UD.weight[user].tolist(), model.item_ND.weight[item].tolist()
    bias = model.user_U1.weight[user].item() + model.item_N1.weight[item].item()
    dot = sum(a * b for a, b in zip(p, q, strict=True))
    return sum(observed.values()) / len(observed) + bias + dot


def test_predictions_follow_the_equation(model, ratings):
    slow = slow_biasedmf if type(model) is REGISTRY["biasedmf"] else slow_autorec
    user_B = torch.tensor([0, 5, 5, 11, 3, 0])
    item_B = torch.tensor([4, 9, 0, 2, 3, 1])  # observed or not, rated by nobody, rating nothing
    wanted = [
        slow(model, ratings, u, i) for u, i in zip(user_B.tolist(), item_B.tolist(), strict=True)
    ]
    assert model.predict(user_B, item_B).tolist() == pytest.approx(wanted, rel=1e-9)


def test_the_objective_is_a_loop_over_observed_entries(model, ratings):
    """Squared errors of what was rated and the paper's penalty, over the number of ratings."""
    output = model(everything(ratings))
    loss = losses.squared_error(output.logits, output.target) + sum(output.aux.values())
    biased, wanted = type(model) is REGISTRY["biasedmf"], 0.0
    for (user, item), rating in table(ratings).items():
        slow = slow_biasedmf if biased else slow_autorec
        wanted += (rating - slow(model, ratings, user, item)) ** 2
        if biased:
            parts = [model.user_UD.weight[user], model.item_ND.weight[item]]
            parts += [model.user_U1.weight[user], model.item_N1.weight[item]]
            wanted += model.config.penalty * sum(x**2 for part in parts for x in part.tolist())
    if not biased:
        weights = model.encoder_MH.flatten().tolist() + model.decoder_MH.flatten().tolist()
        wanted += model.config.penalty / 2 * sum(x**2 for x in weights)
    assert loss.item() == pytest.approx(wanted / len(ratings), rel=1e-9)


def test_without_a_penalty_there_is_no_such_term(model, ratings):
    plain = type(model)(ratings, replace(model.config, penalty=0.0))
    assert plain(everything(ratings)).aux == {}


def test_an_unobserved_entry_moves_no_weight_of_its_column(ratings):
    """Masking: a user who rated none of the batch's items gets no gradient from them."""
    model = build("autorec", ratings, rows="item", hidden=3)
    at = (ratings.item == 4).nonzero()[:, 0]
    output = model(ratings.rated(at))
    losses.squared_error(output.logits, output.target).backward()
    rated = set(ratings.user[at].tolist())
    moved = set(model.decoder_MH.grad.any(1).nonzero()[:, 0].tolist())
    assert moved == rated and len(rated) < ratings.num_users
