"""What every ranking model of the registry must do: one suite for all of them.

Click-through models, which rank nothing, have their own in test_context.py.

Shape letters: B rows, N items, K candidates.
"""

import pytest
import torch

from inforec import losses
from inforec.batches import UserBatches
from inforec.evaluate import recommend
from inforec.models import REGISTRY, Ranker
from inforec.train import FitConfig, Objective, fit
from inforec.types import Batch, Query

MODELS = sorted(name for name in REGISTRY if issubclass(REGISTRY[name], Ranker))
LEARNED = [name for name in MODELS if not REGISTRY[name].closed_form]
PERSONAL = [name for name in MODELS if name != "popularity"]  # one list for everybody

# Options and training for the checkerboard, where 20 users and items leave no room for 64 factors.
SMALL = {
    "mf": {"dim": 4},
    "lightgcn": {"dim": 4, "layers": 2},
    "ngcf": {"dim": 4, "layers": 2},
    "sgl": {"dim": 4, "layers": 2},
    "simgcl": {"dim": 4, "layers": 2, "weight": 0.1},
    "xsimgcl": {"dim": 4, "layers": 2, "weight": 0.1},
    "directau": {"dim": 4, "gamma": 0.2},
    "cgi": {"dim": 4, "layers": 2},
    "multvae": {"hidden": 16, "dim": 4, "anneal": 0},
    "dae": {"hidden": 16},
    "cdae": {"hidden": 16},
    "ease": {"l2": 10.0},
    "itemknn": {"neighbours": 5},
}
BAD_OPTIONS = [
    ("mf", "dim", 0),
    ("mf", "dim", 2.5),
    ("mf", "dim", "64"),
    ("lightgcn", "dim", -1),
    ("lightgcn", "layers", -1),
    ("lightgcn", "layers", 1.5),
    ("lightgcn", "cosine", 1),
    ("mf", "cosine", "no"),
    ("ngcf", "layers", -1),
    ("ngcf", "transform", 1),
    ("ngcf", "affinity", "yes"),
    ("ngcf", "nonlinear", None),
    ("ngcf", "self_connection", 0),
    ("ngcf", "combine", "sum"),
    ("ngcf", "node_dropout", -0.1),
    ("ngcf", "message_dropout", 1.5),
    ("sgl", "layers", -1),
    ("sgl", "augmentation", "node-drop"),
    ("sgl", "ratio", 1.5),
    ("sgl", "ratio", -0.1),
    ("sgl", "weight", -1.0),
    ("sgl", "temperature", 0.0),
    ("simgcl", "layers", 0),
    ("simgcl", "eps", -0.1),
    ("simgcl", "temperature", -1),
    ("xsimgcl", "contrast_layer", 0),
    ("xsimgcl", "contrast_layer", 4),
    ("xsimgcl", "weight", float("inf")),
    ("directau", "gamma", -1),
    ("directau", "weight", -1),
    ("directau", "layers", -1),
    ("cgi", "layers", 0),
    ("cgi", "gate_temperature", 0.0),
    ("cgi", "walk", -1),
    ("cgi", "walk", 2.5),
    ("cgi", "rank_weight", -1.0),
    ("cgi", "rank_temperature", 0),
    ("multvae", "hidden", 0),
    ("multvae", "dim", 2.5),
    ("multvae", "dropout", 1.5),
    ("multvae", "weight", -0.1),
    ("multvae", "anneal", -1),
    ("dae", "hidden", 0),
    ("dae", "corruption", 1.0),
    ("cdae", "hidden", 2.5),
    ("cdae", "corruption", -0.1),
    ("ease", "l2", 0),
    ("ease", "l2", float("nan")),
    ("itemknn", "neighbours", 0),
    ("itemknn", "shrinkage", -1.0),
]


def build(name, train, seed=0):
    torch.manual_seed(seed)
    model = REGISTRY[name](train)
    model.on_fit_start()
    return model.eval()


def everyone(data):
    return Query(torch.arange(data.num_users), data.train.history_UT)


@pytest.mark.parametrize("name", PERSONAL)
def test_checkerboard(name, checkerboard):
    """Even users like even items; the one that a user has not seen must come first."""
    torch.manual_seed(0)
    model = REGISTRY[name](checkerboard.train, REGISTRY[name].Config(**SMALL[name]))
    objective = Objective(
        "softmax", lambda output, batch: losses.softmax(output.distribution, output.target)
    )
    config = FitConfig(epochs=60, learning_rate=0.03, device="cpu", progress=False)
    fit(model, UserBatches(checkerboard.train, 45, 0), objective, config)
    first = recommend(model, checkerboard, 1)[:, 0]
    assert first.tolist() == list(range(20))


@pytest.mark.parametrize("name", [name for name in MODELS if not REGISTRY[name].reads_history])
def test_a_model_that_reads_no_history_needs_none(name, tiny):
    model, query = build(name, tiny.train), everyone(tiny)
    torch.testing.assert_close(model.score(Query(query.user)), model.score(query), rtol=0, atol=0)


@pytest.mark.parametrize("name", MODELS)
def test_forward_agrees_with_score(name, tiny):
    model = build(name, tiny.train)
    user_B = torch.tensor([3, 0, 17, 3])
    history_BT = tiny.train.history_UT[user_B]
    score_BN = model.score(Query(user_B, history_BT))
    items_BK = torch.tensor([[1, 29, 4], [0, 0, 7], [12, 5, 1], [4, 1, 29]])
    chosen = model(Batch(user_B, history_BT, items=items_BK, target=torch.zeros(4).long()))
    torch.testing.assert_close(chosen.logits, score_BN.gather(1, items_BK))
    assert not chosen.complete and chosen.law == "categorical"
    whole = model(Batch(user_B, history_BT, target=history_BT))
    assert whole.complete and torch.equal(whole.target, history_BT)
    if whole.logits is not None:
        torch.testing.assert_close(whole.logits, score_BN)
    # The law is over the whole catalogue either way.
    every_BN = torch.arange(tiny.num_items).expand(4, -1)
    for output in (chosen, whole):
        assert output.distribution.complete and output.distribution.num_items == tiny.num_items
        torch.testing.assert_close(output.distribution.log_prob(every_BN), score_BN.log_softmax(1))


@pytest.mark.parametrize("name", MODELS)
def test_law_agrees_with_score(name, tiny):
    model = build(name, tiny.train)
    every_BN = torch.arange(tiny.num_items).expand(tiny.num_users, -1)
    law = model.law(everyone(tiny))
    torch.testing.assert_close(law.log_prob(every_BN), model.score(everyone(tiny)).log_softmax(1))


@pytest.mark.parametrize("name", MODELS)
def test_a_batch_equals_its_rows_one_by_one(name, tiny):
    model = build(name, tiny.train)
    together = model.score(everyone(tiny))
    assert together.shape == (tiny.num_users, tiny.num_items)
    for user in range(tiny.num_users):
        count = int(tiny.train.user_counts[user])
        alone = Query(torch.tensor([user]), tiny.train.history_UT[user : user + 1, :count])
        torch.testing.assert_close(model.score(alone)[0], together[user])


@pytest.mark.parametrize("name", MODELS)
def test_scores_are_finite_even_for_the_smallest_history_and_an_unseen_item(name, tiny):
    assert int(tiny.train.user_counts[0]) == 1 and int(tiny.train.item_counts[29]) == 0
    assert torch.isfinite(build(name, tiny.train).score(everyone(tiny))).all()


@pytest.mark.parametrize("name", LEARNED)
def test_every_parameter_gets_a_gradient(name, tiny):
    model = build(name, tiny.train)
    batch = next(UserBatches(tiny.train, 10**6, 0).epoch(1))
    output = model(batch)
    losses.softmax(output.distribution, output.target).backward()
    missing = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert missing == []


@pytest.mark.parametrize("name", MODELS)
def test_a_closed_form_has_nothing_to_train_and_the_others_have(name, tiny):
    has_parameters = any(p.requires_grad for p in build(name, tiny.train).parameters())
    assert has_parameters != REGISTRY[name].closed_form


@pytest.mark.parametrize("name", MODELS)
def test_saved_weights_give_the_same_scores(name, tiny, tmp_path):
    model = build(name, tiny.train, seed=0)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    other = build(name, tiny.train, seed=1)
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert torch.equal(other.score(everyone(tiny)), model.score(everyone(tiny)))


@pytest.mark.parametrize("name", MODELS)
def test_the_seed_decides(name, tiny):
    first, again, other = (
        build(name, tiny.train, seed).score(everyone(tiny)) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert torch.equal(first, other) == REGISTRY[name].closed_form


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


def test_the_registry_names_every_family_once():
    collaborative, graph = {"popularity", "itemknn", "ease", "mf"}, {"lightgcn", "ngcf"}
    contrastive = {"sgl", "simgcl", "xsimgcl", "directau", "cgi"}
    autoencoder = {"dae", "cdae", "multvae"}
    assert collaborative | graph | contrastive | autoencoder <= set(REGISTRY)
    assert len(set(REGISTRY.values())) == len(REGISTRY)
