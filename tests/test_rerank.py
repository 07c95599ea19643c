"""The greedy rerankers against slow loops, and against all lists of a tiny catalogue.

Shape letters: B users, N items, M candidates, C categories, K list length.
"""

import itertools
import math

import pytest
import torch

from inforec import rerank
from inforec.rerank import attention, decaying_attention, expected_ndcg, steck

B, N, M, C = 6, 15, 8, 3


def simplex(*shape):
    rows = torch.rand(*shape, dtype=torch.float64)
    return rows / rows.sum(1, keepdim=True)


@pytest.fixture
def problem():
    """Scores, candidates, interests and categories; some interests and categories are zero."""
    torch.manual_seed(2)
    score_BM = torch.randn(B, M, dtype=torch.float64)
    item_BM = torch.stack([torch.randperm(N)[:M] for _ in range(B)])
    interest_BC, category_NC = simplex(B, C), simplex(N, C)
    interest_BC[0] = torch.tensor([1.0, 0.0, 0.0])
    category_NC[:9] = torch.eye(C, dtype=torch.float64)[torch.arange(9) % C]
    return score_BM, item_BM, interest_BC, category_NC


def value(chosen, score, items, p, category_NC, trade_off):
    """The value of a list: Steck's equation 8 with the divergence of equation 7."""
    rows = [category_NC[items[m]].tolist() for m in chosen]
    divergence = 0.0
    for c in range(C):
        q = 0.99 * sum(row[c] for row in rows) / len(rows) + 0.01 * p[c]
        if p[c] > 0:
            divergence += p[c] * math.log(p[c] / q)
    return (1 - trade_off) * sum(score[m] for m in chosen) - trade_off * divergence


def slow_greedy(score, items, p, category_NC, k, trade_off):
    """Places of the candidates in the order in which they are chosen."""
    chosen = []
    for _ in range(k):
        left = [m for m in range(len(items)) if m not in chosen]
        chosen.append(
            max(left, key=lambda m: value([*chosen, m], score, items, p, category_NC, trade_off))
        )
    return chosen


@pytest.mark.parametrize("trade_off", [0.0, 0.3, 0.7, 0.99, 1.0])
@pytest.mark.parametrize("k", [1, 4, M])
def test_follows_a_slow_loop(problem, k, trade_off):
    score_BM, item_BM, interest_BC, category_NC = problem
    ours = steck(
        score_BM, item_BM, interest_BC, category_NC, k=k, trade_off=trade_off, sort_by_score=False
    )
    for b in range(B):
        items, score, p = item_BM[b].tolist(), score_BM[b].tolist(), interest_BC[b].tolist()
        chosen = slow_greedy(score, items, p, category_NC, k, trade_off)
        if trade_off < 1.0:
            assert ours[b].tolist() == [items[m] for m in chosen]
        # With scores ignored, one-hot items tie: the lists agree in value.
        places = [items.index(i) for i in ours[b].tolist()]
        assert value(places, score, items, p, category_NC, trade_off) == pytest.approx(
            value(chosen, score, items, p, category_NC, trade_off), abs=1e-9
        )


def test_the_smoothing_is_that_of_the_value():
    """A narrow item against a mixed one: the choice turns at the score where their values meet."""
    category_NC = torch.tensor([[1.0, 0.0], [0.5, 0.5]], dtype=torch.float64)
    p = [0.5, 0.5]
    padded = ([*p, 0.0], torch.nn.functional.pad(category_NC, (0, 1)))  # value() has C categories
    narrow, mixed = (value([m], [0.0, 0.0], [0, 1], *padded, 0.5) for m in (0, 1))
    for shift, best in ((-1e-3, 1), (1e-3, 0)):
        score_BM = torch.tensor([[2 * (mixed - narrow) + shift, 0.0]], dtype=torch.float64)
        chosen = steck(
            score_BM, torch.tensor([[0, 1]]), torch.tensor([p]), category_NC, k=1, trade_off=0.5
        )
        assert chosen.item() == best


def test_sorting_changes_the_order_and_nothing_else(problem):
    score_BM, item_BM, *rest = problem
    chosen = steck(score_BM, item_BM, *rest, k=5, trade_off=0.8, sort_by_score=False)
    ordered = steck(score_BM, item_BM, *rest, k=5, trade_off=0.8)
    assert not torch.equal(chosen, ordered)
    for b in range(B):
        score = dict(zip(item_BM[b].tolist(), score_BM[b].tolist(), strict=True))
        assert ordered[b].tolist() == sorted(chosen[b].tolist(), key=score.get, reverse=True)


def test_trade_off_zero_gives_the_best_scores(problem):
    score_BM, item_BM, *rest = problem
    best = item_BM.gather(1, score_BM.topk(4).indices)
    assert torch.equal(steck(score_BM, item_BM, *rest, k=4, trade_off=0.0), best)


def test_trade_off_one_ignores_the_scores(problem):
    score_BM, *rest = problem
    first = steck(score_BM, *rest, k=4, trade_off=1.0, sort_by_score=False)
    second = steck(-5 * score_BM, *rest, k=4, trade_off=1.0, sort_by_score=False)
    assert torch.equal(first, second)
    assert not torch.equal(first, steck(score_BM, *rest, k=4, trade_off=0.0, sort_by_score=False))


@pytest.mark.parametrize("trade_off", [0.0, 0.5, 1.0])
def test_a_batch_equals_its_users_one_by_one(problem, trade_off):
    score_BM, item_BM, interest_BC, category_NC = problem
    together = steck(score_BM, item_BM, interest_BC, category_NC, k=5, trade_off=trade_off)
    for b in range(B):
        row = slice(b, b + 1)
        alone = steck(
            score_BM[row], item_BM[row], interest_BC[row], category_NC, k=5, trade_off=trade_off
        )
        assert torch.equal(alone[0], together[b])


@pytest.mark.parametrize("trade_off", [0.2, 0.6, 0.95])
def test_greedy_keeps_its_bound_against_the_best_of_all_lists(problem, trade_off):
    """The bound that holds for the value itself, not for a ratio of values.

    For lists of one length n the value differs by a constant from

        F(I) = (1 - trade_off) sum of scores
               + trade_off sum_c p_c log(sum over I of (0.99 p(c|i) + 0.01 p_c)),

    which is submodular, and monotone where scores are not negative; but F of the empty list is
    minus infinity, so the bound starts at the first item chosen, I_1. Each further step closes at
    least one k-th of the distance to the best list of k:

        F(best) - F(greedy) <= (1 - 1/k)^(k - 1) (F(best) - F(I_1)).
    """
    score_BM, item_BM, interest_BC, category_NC = problem
    score_BM = score_BM.abs()
    k = 3

    def shifted(chosen, b):
        total = (1 - trade_off) * sum(score_BM[b, m].item() for m in chosen)
        for c in range(C):
            p = interest_BC[b, c].item()
            if p > 0:
                mass = sum(0.99 * category_NC[item_BM[b, m], c].item() + 0.01 * p for m in chosen)
                total += trade_off * p * math.log(mass)
        return total

    ours = steck(
        score_BM, item_BM, interest_BC, category_NC, k=k, trade_off=trade_off, sort_by_score=False
    )
    gaps = []
    for b in range(B):
        items = item_BM[b].tolist()
        greedy = [items.index(i) for i in ours[b].tolist()]
        best = max(itertools.combinations(range(M), k), key=lambda chosen: shifted(chosen, b))
        gap = shifted(best, b) - shifted(greedy, b)
        start = shifted(best, b) - shifted(greedy[:1], b)
        assert -1e-12 <= gap <= (1 - 1 / k) ** (k - 1) * start
        gaps.append(gap)
        # F and the value differ by the same constant for every list of this length.
        arguments = score_BM[b].tolist(), items, interest_BC[b].tolist(), category_NC, trade_off
        difference = shifted(best, b) - shifted(greedy, b)
        assert value(best, *arguments) - value(greedy, *arguments) == pytest.approx(
            difference, abs=1e-9
        )
    assert min(gaps) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    "name, value", [("k", 0), ("k", M + 1), ("k", 1.5), ("trade_off", -0.1), ("trade_off", 1.1)]
)
def test_bad_arguments_are_named(problem, name, value):
    for greedy in (steck, expected_ndcg):
        with pytest.raises(ValueError, match=f"{name}={value!r}"):
            greedy(*problem, **{"k": 3, "trade_off": 0.5, name: value})


# ---- places as in NDCG --------------------------------------------------------------------------


def placed_value(chosen, relevance, items, p, category_NC, k, trade_off):
    """The value of a set of at most k candidates, shown in descending relevance."""
    shown = sorted((relevance[m] for m in chosen), reverse=True)
    gain = sum(r / math.log2(place + 2) for place, r in enumerate(shown))
    divergence = 0.0
    for c in range(C):
        q = (0.99 * sum(category_NC[items[m], c].item() for m in chosen) + 0.01 * k * p[c]) / k
        if p[c] > 0:
            divergence += p[c] * math.log(p[c] / q)
    return (1 - trade_off) * gain - trade_off * divergence


@pytest.mark.parametrize("trade_off", [0.0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("k", [1, 4, M])
def test_expected_ndcg_follows_a_slow_loop(problem, k, trade_off):
    score_BM, item_BM, interest_BC, category_NC = problem
    relevance_BM = score_BM.softmax(1)
    ours = expected_ndcg(relevance_BM, item_BM, interest_BC, category_NC, k=k, trade_off=trade_off)
    for b in range(B):
        items, relevance = item_BM[b].tolist(), relevance_BM[b].tolist()
        chosen = []
        for _ in range(k):
            left = [m for m in range(M) if m not in chosen]
            chosen.append(
                max(
                    left,
                    key=lambda m: placed_value(
                        [*chosen, m], relevance, items, interest_BC[b].tolist(), category_NC, k,
                        trade_off,
                    ),
                )
            )  # fmt: skip
        shown = sorted(chosen, key=relevance.__getitem__, reverse=True)
        assert ours[b].tolist() == [items[m] for m in shown]


@pytest.mark.parametrize("trade_off", [0.05, 0.3, 0.9])
def test_expected_ndcg_keeps_its_bound_against_the_best_of_all_lists(trade_off):
    """Greedy closes 1 - 1/e of the way from the empty list to the best list of k."""
    torch.manual_seed(7)
    k, users, candidates = 3, 40, 9
    relevance_BM = torch.randn(users, candidates, dtype=torch.float64).mul(2).softmax(1)
    interest_BC, category_NC = simplex(users, C) ** 2, simplex(candidates, C) ** 4
    interest_BC /= interest_BC.sum(1, keepdim=True)
    category_NC /= category_NC.sum(1, keepdim=True)
    item_BM = torch.arange(candidates).expand(users, -1)
    ours = expected_ndcg(relevance_BM, item_BM, interest_BC, category_NC, k=k, trade_off=trade_off)
    shares = []
    for b in range(users):

        def worth(chosen, b=b):
            return placed_value(
                chosen, relevance_BM[b].tolist(), range(candidates), interest_BC[b].tolist(),
                category_NC, k, trade_off,
            )  # fmt: skip

        best = max(map(worth, itertools.combinations(range(candidates), k)))
        shares.append((worth(ours[b].tolist()) - worth([])) / (best - worth([])))
    assert 1 - 1 / math.e <= min(shares) < 0.9999  # the bound has something to bound
    assert max(shares) == pytest.approx(1.0, abs=1e-12)


def test_the_smoothing_has_its_full_weight_from_the_first_item_on():
    """Long lists and lopsided interests: with a prior that grows, other items are chosen."""
    torch.manual_seed(8)
    users, candidates, k = 30, 14, 6
    relevance_BM = torch.rand(users, candidates, dtype=torch.float64) / 20
    interest_BC, category_NC = simplex(users, C) ** 3, simplex(candidates, C) ** 3
    interest_BC /= interest_BC.sum(1, keepdim=True)
    category_NC /= category_NC.sum(1, keepdim=True)
    item_BM = torch.arange(candidates).expand(users, -1)
    ours = expected_ndcg(relevance_BM, item_BM, interest_BC, category_NC, k=k, trade_off=0.5)
    for b in range(users):
        chosen = []
        for _ in range(k):

            def worth(m, b=b, chosen=chosen):
                return placed_value(
                    [*chosen, m], relevance_BM[b].tolist(), range(candidates),
                    interest_BC[b].tolist(), category_NC, k, 0.5,
                )  # fmt: skip

            chosen.append(max((m for m in range(candidates) if m not in chosen), key=worth))
        assert set(ours[b].tolist()) == set(chosen)


def test_an_item_at_the_foot_is_cheaper_to_exchange(problem):
    """At one loss of relevance a place, the search that knows the places calibrates better."""
    score_BM, item_BM, *rest = problem
    relevance_BM = score_BM.softmax(1)
    best = expected_ndcg(relevance_BM, item_BM, *rest, k=5, trade_off=0.0)
    assert torch.equal(best, item_BM.gather(1, relevance_BM.topk(5).indices))
    chosen = expected_ndcg(relevance_BM, item_BM, *rest, k=5, trade_off=0.1)
    changed = (chosen != best).sum(0)
    assert changed[-1] > changed[0]


# ---- decaying attention -------------------------------------------------------------------------

OVERLAPS = {
    "hellinger": lambda p, q: math.sqrt(p * q),
    "triangular": lambda p, q: 2 * p * q / (p + q) if p + q else 0.0,
    "total_variation": min,
}


def law(rows, weights):
    """q(c) of a list that may be shorter than the weights."""
    return [sum(w * row[c] for w, row in zip(weights, rows, strict=False)) for c in range(C)]


def decayed_value(chosen, score, rows, p, weights, trade_off, overlap):
    """The value of a list, place after place, written from the definition."""
    q = law([rows[m] for m in chosen], weights)
    total = sum(w * score[m] for w, m in zip(weights, chosen, strict=False))
    agreement = sum(OVERLAPS[overlap](*pair) for pair in zip(p, q, strict=True))
    return (1 - trade_off) * total + trade_off * agreement


@pytest.mark.parametrize("overlap", OVERLAPS)
@pytest.mark.parametrize("trade_off", [0.0, 0.5, 0.95])
@pytest.mark.parametrize("decay", [0.6, 1.0])
def test_decaying_attention_follows_a_slow_loop(problem, overlap, trade_off, decay):
    score_BM, item_BM, interest_BC, category_NC = problem
    k = 5
    weights = [decay**j for j in range(k)]
    weights = [w / sum(weights) for w in weights]
    ours = decaying_attention(*problem, k=k, trade_off=trade_off, decay=decay, overlap=overlap)
    for b in range(B):
        items, score, p = item_BM[b].tolist(), score_BM[b].tolist(), interest_BC[b].tolist()
        rows = [category_NC[i].tolist() for i in items]
        chosen = []
        for _ in range(k):
            left = [m for m in range(M) if m not in chosen]
            chosen.append(
                max(
                    left,
                    key=lambda m: decayed_value(
                        [*chosen, m], score, rows, p, weights, trade_off, overlap
                    ),
                )
            )
        assert ours[b].tolist() == [items[m] for m in chosen]


@pytest.mark.parametrize("overlap", OVERLAPS)
@pytest.mark.parametrize("decay", [0.5, 0.8, 1.0])
def test_greedy_keeps_two_thirds_of_the_best_overlap(overlap, decay):
    """Items of one category each, k of every category, calibration only: the theorem's setting.

    A list is then a sequence of categories, and all C^k of them can be tried.
    """
    torch.manual_seed(5)
    k, num_users = 5, 60
    interest_BC = simplex(num_users, C) ** 3  # some interests are small
    interest_BC /= interest_BC.sum(1, keepdim=True)
    category_NC = torch.eye(C, dtype=torch.float64).repeat_interleave(k, 0)
    item_BM = torch.arange(C * k).expand(num_users, -1)
    score_BM = torch.zeros(num_users, C * k, dtype=torch.float64)
    chosen_BK = decaying_attention(
        score_BM, item_BM, interest_BC, category_NC, k=k, trade_off=1.0, decay=decay,
        overlap=overlap,
    )  # fmt: skip
    weights = attention(k, decay)
    rows = torch.eye(C).tolist()
    ratios = []
    for p, chosen in zip(interest_BC.tolist(), chosen_BK.tolist(), strict=True):

        def worth(sequence, p=p):
            return decayed_value(sequence, [0.0] * C, rows, p, weights, 1.0, overlap)

        best = max(map(worth, itertools.product(range(C), repeat=k)))
        ratios.append(worth([item // k for item in chosen]) / best)
    assert 2 / 3 <= min(ratios)
    assert max(ratios) == pytest.approx(1.0, abs=1e-12)
    if decay == 0.8:
        assert min(ratios) < 0.999  # the bound has something to bound


@pytest.mark.parametrize("overlap", OVERLAPS)
def test_an_overlap_is_one_at_the_interests_and_less_elsewhere(overlap):
    torch.manual_seed(6)
    p_BC, q_BC = simplex(50, C), simplex(50, C)
    p_BC[0], q_BC[0] = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.5, 0.5, 0.0])
    measure = rerank.OVERLAPS[overlap]
    torch.testing.assert_close(
        measure(p_BC, p_BC[:, :, None].clone())[:, 0], torch.ones(50).double()
    )
    assert bool((measure(p_BC, q_BC[:, :, None].clone()) < 1 - 1e-6).all())


def test_the_order_of_the_list_is_kept(problem):
    """The first places weigh most: the same items in descending score are worse calibrated."""
    score_BM, item_BM, interest_BC, category_NC = problem
    weights = attention(6, 0.5)
    ours = decaying_attention(*problem, k=6, trade_off=1.0, decay=0.5)
    assert torch.equal(
        ours, decaying_attention(-score_BM, *problem[1:], k=6, trade_off=1.0, decay=0.5)
    )
    for b in range(B):
        score = dict(zip(item_BM[b].tolist(), score_BM[b].tolist(), strict=True))
        ordered = sorted(ours[b].tolist(), key=score.get, reverse=True)
        kept, resorted = (
            sum(
                math.sqrt(p * q)
                for p, q in zip(
                    interest_BC[b].tolist(), law(category_NC[items].tolist(), weights), strict=True
                )
            )
            for items in (ours[b].tolist(), ordered)
        )
        assert kept > resorted + 1e-3


def test_trade_off_zero_gives_the_best_scores_under_any_decay(problem):
    score_BM, item_BM, *_ = problem
    best = item_BM.gather(1, score_BM.topk(4).indices)
    assert torch.equal(decaying_attention(*problem, k=4, trade_off=0.0, decay=0.7), best)


def test_weights_may_be_given(problem):
    discount_K = 1 / torch.arange(2, 7).log2()
    assert attention(5, discount_K) == pytest.approx(
        [1 / math.log2(1 + j) / 2.948459 for j in range(1, 6)], rel=1e-6
    )
    assert attention(3, 0.5) == pytest.approx([4 / 7, 2 / 7, 1 / 7])
    geometric = 3 * 0.7 ** torch.arange(5.0, dtype=torch.float64)
    assert torch.equal(
        decaying_attention(*problem, k=5, trade_off=0.8, decay=geometric),
        decaying_attention(*problem, k=5, trade_off=0.8, decay=0.7),
    )


@pytest.mark.parametrize("elements", [1, 2 * M * C])
def test_blocks_of_users_change_nothing(problem, monkeypatch, elements):
    settings = {"k": 5, "trade_off": 0.7}
    once = steck(*problem, **settings), decaying_attention(*problem, **settings, decay=0.7)
    placed = expected_ndcg(*problem, **settings)
    monkeypatch.setattr(rerank, "BLOCK_ELEMENTS", elements)
    assert torch.equal(steck(*problem, **settings), once[0])
    assert torch.equal(expected_ndcg(*problem, **settings), placed)
    assert torch.equal(decaying_attention(*problem, **settings, decay=0.7), once[1])


@pytest.mark.parametrize(
    "name, value",
    [
        ("k", 0),
        ("k", M + 1),
        ("trade_off", -0.1),
        ("trade_off", 1.1),
        ("decay", 0.0),
        ("decay", 1.1),
        ("decay", "slow"),
        ("overlap", "helinger"),
    ],
)
def test_bad_arguments_of_decaying_attention_are_named(problem, name, value):
    with pytest.raises(ValueError, match=f"{name}={value!r}"):
        decaying_attention(*problem, **{"k": 3, "trade_off": 0.5, "decay": 0.9, name: value})


@pytest.mark.parametrize("weights", [[1.0, 0.5], [1.0, 2.0, 1.0], [1.0, 0.5, 0.0], [math.inf] * 3])
def test_bad_weights_are_named(weights):
    with pytest.raises(ValueError, match=r"decay=tensor.*expected 3 positive"):
        attention(3, torch.tensor(weights))
