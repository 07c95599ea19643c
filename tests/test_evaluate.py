"""The evaluator: lists from scores, metrics from lists, and the errors of both.

Shape letters: U users, N items, K list length.
"""

import math

import pytest
import torch

import inforec.evaluate as module
from inforec.evaluate import (
    evaluate,
    evaluate_clicks,
    evaluate_lists,
    evaluate_ratings,
    recommend,
    score_blocks,
)
from inforec.metrics import pointwise
from inforec.models import REGISTRY, DotProduct, Ranker
from inforec.types import PAD

SPLITS = ["valid", "test"]


class Fixed(Ranker):
    """Gives the scores it was built with."""

    def __init__(self, score_UN):
        torch.nn.Module.__init__(self)
        self.score_UN = score_UN

    def score(self, query):
        return self.score_UN[query.user]


class FixedVectors(DotProduct):
    """A dot-product model with the vectors it was built with; counts its calls."""

    def __init__(self, user_UD, item_ND):
        torch.nn.Module.__init__(self)
        self.user_UD, self.item_ND, self.calls = user_UD, item_ND, 0

    def embed(self, query):
        self.calls += 1
        return self.user_UD[query.user], self.item_ND


@pytest.fixture
def score_UN(tiny):
    torch.manual_seed(4)
    return torch.randn(tiny.num_users, tiny.num_items)


def items_of(interactions, user):
    rows = zip(interactions.user.tolist(), interactions.item.tolist(), strict=True)
    return [i for u, i in rows if u == user]


def slow_recommend(score_UN, data, k, on):
    lists = []
    for user, score in enumerate(score_UN.tolist()):
        taken = set(items_of(data.train, user))
        if on == "test":
            taken |= set(items_of(data.valid, user))
        best = sorted((i for i in range(data.num_items) if i not in taken), key=lambda i: -score[i])
        lists.append(best[:k] + [PAD] * (k - len(best[:k])))
    return lists


# ---- recommend ----------------------------------------------------------------------------------


@pytest.mark.parametrize("on", SPLITS)
@pytest.mark.parametrize("k", [1, 5, 28, 30, 40])
def test_recommend_sorts_what_is_left(tiny, score_UN, k, on):
    ours = recommend(Fixed(score_UN), tiny, k, on)
    assert ours.dtype == torch.int64
    assert ours.tolist() == slow_recommend(score_UN, tiny, k, on)


@pytest.mark.parametrize("on", SPLITS)
def test_nothing_taken_is_ever_recommended(tiny, on):
    # A model that loves exactly what must not come back.
    score_UN = torch.zeros(tiny.num_users, tiny.num_items)
    score_UN[tiny.train.user, tiny.train.item] = 100.0
    score_UN[tiny.valid.user, tiny.valid.item] = 50.0
    top_UK = recommend(Fixed(score_UN), tiny, 40, on)
    for user, row in enumerate(top_UK.tolist()):
        assert not set(row) & set(items_of(tiny.train, user))
        valid = set(items_of(tiny.valid, user))
        if on == "test":
            assert not set(row) & valid
            assert set(items_of(tiny.test, user)) <= set(row)
        else:
            assert set(row[: len(valid)]) == valid


@pytest.mark.parametrize("held", [1, 31, 200])
def test_blocks_of_users_do_not_change_the_lists(tiny, score_UN, held, monkeypatch):
    torch.manual_seed(0)
    vectors = torch.randn(tiny.num_users, 4), torch.randn(tiny.num_items, 4)
    whole = [recommend(Fixed(score_UN), tiny, 7), recommend(FixedVectors(*vectors), tiny, 7)]
    monkeypatch.setattr(module, "SCORES_HELD", held)
    for embedded in (5, 1000):
        monkeypatch.setattr(module, "USERS_EMBEDDED", embedded)
        assert torch.equal(recommend(Fixed(score_UN), tiny, 7), whole[0])
        assert torch.equal(recommend(FixedVectors(*vectors), tiny, 7), whole[1])


def test_blocks_hold_at_most_the_scores_allowed_and_embed_once(tiny, monkeypatch):
    monkeypatch.setattr(module, "SCORES_HELD", 100)
    model = FixedVectors(torch.randn(tiny.num_users, 4), torch.randn(tiny.num_items, 4))
    blocks = list(score_blocks(model, tiny.train.history_UT, tiny.num_items))
    assert torch.cat([user_B for user_B, _ in blocks]).tolist() == list(range(tiny.num_users))
    assert max(score_BN.numel() for _, score_BN in blocks) <= 100
    assert model.calls == 1


def test_the_models_own_scores_are_left_alone(tiny, score_UN):
    class Shared(Fixed):
        def score(self, query):
            return self.score_UN[: len(query.user)]  # a view, not a copy

    before = score_UN.clone()
    recommend(Shared(score_UN), tiny, 3)
    assert torch.equal(score_UN, before)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_is_named(tiny, score_UN, value):
    score_UN[7, 11] = value
    with pytest.raises(ValueError, match=f"Fixed scores user index 7, item index 11 as {value}"):
        recommend(Fixed(score_UN), tiny, 3)


def test_recommend_puts_the_model_in_evaluation_mode_and_keeps_no_graph(tiny):
    seen = []

    class Watched(REGISTRY["mf"]):
        def embed(self, query):
            seen.append((self.training, torch.is_grad_enabled()))
            return super().embed(query)

    recommend(Watched(tiny.train), tiny, 3)
    assert seen == [(False, False)]


def test_an_unknown_split_is_an_error(tiny, score_UN):
    for call in (
        lambda: recommend(Fixed(score_UN), tiny, 3, "train"),
        lambda: evaluate_lists(torch.zeros(24, 1), tiny, (1,), "train"),
    ):
        with pytest.raises(ValueError, match="on='train': expected one of valid, test"):
            call()


# ---- metrics of lists ---------------------------------------------------------------------------


def slow_metrics(lists, data, k, on):
    """Every metric of the lists cut at k, from the definitions, over the users with a truth."""
    truth = getattr(data, on)
    users = [u for u in range(data.num_users) if items_of(truth, u)]
    counts = [0] * data.num_items
    for i in data.train.item.tolist():
        counts[i] += 1
    n, N = sum(counts), data.num_items
    rows = data.category_NC.double().tolist()
    C = len(rows[0])
    shown = [0] * N
    per_user = {name: [] for name in ("recall", "precision", "hit", "ndcg", "mrr")}
    per_user |= {name: [] for name in ("novelty", "ild", "category_entropy", "calibration_kl")}
    for u in users:
        held_out = set(items_of(truth, u))
        cut = lists[u][:k]
        items = [i for i in cut if i >= 0]
        for i in items:
            shown[i] += 1
        ranks = [rank for rank, i in enumerate(cut, 1) if i in held_out]
        per_user["recall"].append(len(ranks) / len(held_out))
        per_user["precision"].append(len(ranks) / k)
        per_user["hit"].append(float(bool(ranks)))
        per_user["mrr"].append(1 / ranks[0] if ranks else 0.0)
        ideal = sum(1 / math.log2(r + 1) for r in range(1, min(k, len(held_out)) + 1))
        per_user["ndcg"].append(sum(1 / math.log2(r + 1) for r in ranks) / ideal)
        per_user["novelty"].append(
            sum(-math.log((counts[i] + 1) / (n + N)) for i in items) / len(items)
        )
        norm = [math.sqrt(sum(x * x for x in row)) for row in rows]
        pairs = [(a, b) for a in items for b in items if a < b]
        distance = [
            1 - sum(x * y for x, y in zip(rows[a], rows[b], strict=True)) / norm[a] / norm[b]
            for a, b in pairs
        ]
        per_user["ild"].append(sum(distance) / len(pairs) if pairs else math.nan)
        q = [sum(rows[i][c] for i in items) / len(items) for c in range(C)]
        per_user["category_entropy"].append(-sum(x * math.log(x) for x in q if x))
        history = items_of(data.train, u)
        p = [sum(rows[i][c] for i in history) / len(history) for c in range(C)]
        per_user["calibration_kl"].append(
            sum(a * math.log(a / (0.99 * b + 0.01 * a)) for a, b in zip(p, q, strict=True) if a)
        )
    metrics = {}
    for name, values in per_user.items():
        known = [v for v in values if not math.isnan(v)]
        metrics[f"{name}@{k}"] = sum(known) / len(known) if known else math.nan
    total = sum(shown)
    metrics[f"coverage@{k}"] = sum(x > 0 for x in shown) / N
    metrics[f"gini@{k}"] = sum(abs(a - b) for a in shown for b in shown) / (2 * N * total)
    metrics[f"item_entropy@{k}"] = -sum(x / total * math.log(x / total) for x in shown if x)
    return metrics


@pytest.mark.parametrize("on", SPLITS)
def test_every_metric_follows_its_definition(tiny, score_UN, on):
    top_UK = recommend(Fixed(score_UN), tiny, 30, on)
    ours = evaluate_lists(top_UK, tiny, (1, 5, 30), on)
    wanted = {}
    for k in (1, 5, 30):
        wanted |= slow_metrics(top_UK.tolist(), tiny, k, on)
    assert set(ours) == set(wanted)
    assert ours == pytest.approx(wanted, rel=1e-6, nan_ok=True)


def test_users_with_nothing_held_out_do_not_count(tiny, make_dataset, score_UN):
    rows = zip(tiny.test.user.tolist(), tiny.test.item.tolist(), strict=True)
    some = [(u, i) for u, i in rows if u % 3]
    train = list(zip(tiny.train.user.tolist(), tiny.train.item.tolist(), strict=True))
    data = make_dataset(train, [], some, tiny.num_users, tiny.num_items, tiny.category_NC)
    top_UK = recommend(Fixed(score_UN), data, 5)
    ours = evaluate_lists(top_UK, data, (5,))
    assert ours == pytest.approx(slow_metrics(top_UK.tolist(), data, 5, "test"), rel=1e-6)


def test_nobody_to_evaluate_is_undefined_not_zero(tiny, make_dataset):
    train = list(zip(tiny.train.user.tolist(), tiny.train.item.tolist(), strict=True))
    data = make_dataset(train, [], [], tiny.num_users, tiny.num_items, tiny.category_NC)
    ours = evaluate_lists(torch.full((tiny.num_users, 2), PAD), data, (2,))
    for name in ("recall", "precision", "hit", "ndcg", "mrr", "novelty", "calibration_kl"):
        assert math.isnan(ours[f"{name}@2"])


def test_by_hand(make_dataset):
    category_NC = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    data = make_dataset([(0, 0), (1, 1)], [], [(0, 1), (0, 2), (1, 3)], 2, 4, category_NC)
    ours = evaluate_lists([[3, 1], [3, -1]], data, (2,))
    assert ours["recall@2"] == pytest.approx((1 / 2 + 1) / 2)
    assert ours["precision@2"] == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert ours["mrr@2"] == pytest.approx((1 / 2 + 1) / 2)
    first = (1 / math.log2(3)) / (1 + 1 / math.log2(3))
    assert ours["ndcg@2"] == pytest.approx((first + 1) / 2)
    assert ours["coverage@2"] == pytest.approx(2 / 4)
    assert ours["ild@2"] == pytest.approx(1 - 1 / math.sqrt(2))  # the other list has one item
    # Exposure is 1 of item 1 and 2 of item 3.
    assert ours["item_entropy@2"] == pytest.approx(math.log(3) - 2 / 3 * math.log(2))
    assert ours["gini@2"] == pytest.approx((1 * 1 + 3 * 2) / (4 * 3))
    # Each item was taken once or never: (1 + 1) / (2 + 4) or (0 + 1) / (2 + 4).
    assert ours["novelty@2"] == pytest.approx(((math.log(6) + math.log(3)) / 2 + math.log(6)) / 2)


def test_without_categories_there_are_no_category_metrics(tiny, make_dataset, score_UN):
    train, test = (
        list(zip(part.user.tolist(), part.item.tolist(), strict=True))
        for part in (tiny.train, tiny.test)
    )
    data = make_dataset(train, [], test, tiny.num_users, tiny.num_items)
    ours = evaluate_lists(recommend(Fixed(score_UN), data, 5), data, (5,))
    names = {name.split("@")[0] for name in ours}
    assert names == {
        *("recall", "precision", "hit", "ndcg", "mrr"),
        *("coverage", "gini", "item_entropy", "novelty"),
    }


def test_a_perfect_and_a_hopeless_list(tiny):
    truth = [items_of(tiny.test, u) for u in range(tiny.num_users)]
    best = evaluate_lists([row[:2] for row in truth], tiny, (2,))
    assert [best[f"{n}@2"] for n in ("recall", "precision", "hit", "ndcg", "mrr")] == [1.0] * 5
    others = []
    for user in range(tiny.num_users):
        known = {*truth[user], *items_of(tiny.train, user)}
        others.append([i for i in range(tiny.num_items) if i not in known][:2])
    worst = evaluate_lists(others, tiny, (2,))
    assert [worst[f"{n}@2"] for n in ("recall", "precision", "hit", "ndcg", "mrr")] == [0.0] * 5


def test_lists_that_show_every_item_alike_have_gini_zero(make_dataset):
    data = make_dataset([(0, 0), (1, 1)], [], [(0, 1), (1, 0)], 2, 2, torch.eye(2))
    ours = evaluate_lists([[1], [0]], data, (1,))
    assert ours["gini@1"] == pytest.approx(0.0, abs=1e-15) and ours["coverage@1"] == 1.0
    assert ours["item_entropy@1"] == pytest.approx(math.log(2))


def test_cuts_of_one_list_are_those_of_shorter_lists(tiny, score_UN):
    top_UK = recommend(Fixed(score_UN), tiny, 10)
    together = evaluate_lists(top_UK, tiny, (3, 10))
    alone = evaluate_lists(top_UK[:, :3], tiny, (3,))
    assert {name: value for name, value in together.items() if name.endswith("@3")} == alone


def test_evaluate_is_recommend_and_evaluate_lists(tiny, score_UN):
    metrics, top_UK = evaluate(Fixed(score_UN), tiny, (2, 6), "valid")
    assert torch.equal(top_UK, recommend(Fixed(score_UN), tiny, 6, "valid"))
    assert metrics == evaluate_lists(top_UK, tiny, (2, 6), "valid")


# ---- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(23, 3), (24,), (24, 3, 1)])
def test_a_wrong_shape_is_named(tiny, shape):
    with pytest.raises(ValueError, match=rf"top_UK of shape \({shape[0]},.*24 users"):
        evaluate_lists(torch.full(shape, PAD), tiny, (1,))


@pytest.mark.parametrize("ks", [(0,), (3, 4), (-1,)])
def test_a_cut_longer_than_the_lists_is_named(tiny, ks):
    with pytest.raises(
        ValueError, match=r"ks=-?\d: expected a whole number at least 1 and at most 3"
    ):
        evaluate_lists(torch.full((24, 3), PAD), tiny, ks)


@pytest.mark.parametrize("item", [-2, 30])
def test_an_item_out_of_range_is_named(tiny, item):
    top_UK = torch.full((24, 3), PAD)
    top_UK[5, 1] = item
    with pytest.raises(ValueError, match=rf"top_UK\[5, 1\]={item}: .* from 0 to 29"):
        evaluate_lists(top_UK, tiny, (3,))


def test_an_item_twice_in_a_list_is_named(tiny, score_UN):
    top_UK = recommend(Fixed(score_UN), tiny, 3)
    top_UK[4, 2] = top_UK[4, 0]
    with pytest.raises(ValueError, match=rf"top_UK\[4\] holds item {top_UK[4, 0]} twice"):
        evaluate_lists(top_UK, tiny, (3,))


def test_a_training_item_in_a_list_is_named(tiny, score_UN):
    top_UK = recommend(Fixed(score_UN), tiny, 3)
    top_UK[4, 2] = items_of(tiny.train, 4)[0]
    with pytest.raises(ValueError, match=rf"top_UK\[4, 2\]={top_UK[4, 2]}: .* took in training"):
        evaluate_lists(top_UK, tiny, (3,))


def test_lists_from_elsewhere_may_be_arrays_lists_and_reversed_views(tiny):
    top_UK = torch.full((24, 4), PAD)
    expected = evaluate_lists(top_UK, tiny, (4,))
    as_array = top_UK.numpy()
    for lists in (as_array, as_array[:, ::-1], as_array.tolist(), list(as_array), list(top_UK)):
        got = evaluate_lists(lists, tiny, (4,))
        assert got.keys() == expected.keys() and got["recall@4"] == expected["recall@4"]


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        (torch.full((24, 3), 0.5), r"top_UK of torch.float32: expected item indices"),
        ([[0, 1]] * 23 + [[0]], "top_UK: expected one list of item indices a user"),
        ([["a", "b"]] * 24, "top_UK: expected one list of item indices a user"),
    ],
)
def test_lists_that_are_no_lists_of_items_are_refused(tiny, lists, message):
    with pytest.raises(ValueError, match=message):
        evaluate_lists(lists, tiny, (2,))


# ---- labelled rows ------------------------------------------------------------------------------


def test_clicks_are_measured_row_by_row(impressions, monkeypatch):
    torch.manual_seed(0)
    model = REGISTRY["fm"](impressions, REGISTRY["fm"].Config(dim=3))
    torch.nn.init.normal_(model.vector.value_VD)
    model.train()
    metrics, logit_E = evaluate_clicks(model, impressions)
    assert not model.training and not logit_E.requires_grad
    assert torch.equal(logit_E, model(impressions.rows(slice(None))).logits)
    label_E = impressions.label
    assert metrics == {
        "auc": pointwise.auc(logit_E, label_E),
        "gauc": pointwise.gauc(logit_E, label_E, impressions.user),
        "logloss": pointwise.logloss(logit_E, label_E),
        "ece": pointwise.ece(logit_E, label_E),
    }
    monkeypatch.setattr("inforec.evaluate.ROWS_HELD", 7)
    torch.testing.assert_close(evaluate_clicks(model, impressions)[1], logit_E)


def test_a_logit_that_is_not_finite_is_named(impressions):
    model = REGISTRY["lr"](impressions)
    with torch.no_grad():
        model.linear.weight.value_VD[5] = torch.nan
    with pytest.raises(ValueError, match="model LR gives row 4 the logit nan"):
        evaluate_clicks(model, impressions)


# ---- ratings ------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", ["item", "user"])
def test_ratings_are_measured_one_by_one(ratings, rows, monkeypatch):
    torch.manual_seed(0)
    model = REGISTRY["autorec"](ratings, REGISTRY["autorec"].Config(rows=rows, hidden=4))
    torch.nn.init.normal_(model.decoder_MH)
    model.train()
    metrics, rating_E = evaluate_ratings(model, ratings)
    assert not model.training and not rating_E.requires_grad
    triples = zip(ratings.user, ratings.item, ratings.rating.tolist(), strict=True)
    errors = [model.rate(u[None], i[None]).item() - rating for u, i, rating in triples]
    assert metrics["rmse"] == pytest.approx(math.sqrt(sum(e**2 for e in errors) / 45), rel=1e-6)
    assert metrics["mae"] == pytest.approx(sum(map(abs, errors)) / 45, rel=1e-6)
    assert rating_E.min() == 1 and rating_E.max() == 5  # cut to the scale
    monkeypatch.setattr("inforec.evaluate.ROWS_HELD", 7)
    torch.testing.assert_close(evaluate_ratings(model, ratings)[1], rating_E)


def test_a_rating_that_is_not_finite_is_named(ratings):
    model = REGISTRY["biasedmf"](ratings)
    with torch.no_grad():
        model.item_N1.weight[4] = torch.nan
    with pytest.raises(ValueError, match="BiasedMF rates item index 4 for user index 0 as nan"):
        evaluate_ratings(model, ratings)
