"""Q_u against the definition in plain Python; the dense and the streaming path are held alike.

Shape letters: B rows, N items, D embedding size, C categories, T places of an item table.
"""

import math

import pytest
import torch

from inforec.distribution import ItemDistribution

B, N, D, C = 4, 9, 3, 2
PATHS = ["dense", "streaming"]
PER_ROW = torch.tensor([0.3, 1.0, 2.5, 0.7], dtype=torch.float64)
EXCLUDE = torch.tensor([[0, 8, -1], [-1, -1, -1], [4, 4, 2], [5, -1, 5]])


def embeddings(scale=1.0):
    torch.manual_seed(3)
    query_BD = (torch.randn(B, D, dtype=torch.float64) * scale).requires_grad_()
    return query_BD, torch.randn(N, D, dtype=torch.float64, requires_grad=True)


def build(path, query_BD, item_ND, **options):
    if path == "dense":
        return ItemDistribution.from_logits(query_BD @ item_ND.T, **options)
    return ItemDistribution.from_embeddings(query_BD, item_ND, **options)


def slow_law(query_BD, item_ND, temperature, exclude_BT):
    """Q_u(i) from the definition: a list of lists."""
    rows = []
    query_BD, item_ND = query_BD.tolist(), item_ND.tolist()
    for b in range(len(query_BD)):
        t = float(temperature[b]) if isinstance(temperature, torch.Tensor) else temperature
        hidden = [] if exclude_BT is None else exclude_BT[b].tolist()
        weight = [
            0.0
            if i in hidden
            else math.exp(sum(q * k for q, k in zip(query_BD[b], item_ND[i], strict=True)) / t)
            for i in range(len(item_ND))
        ]
        rows.append([w / sum(weight) for w in weight])
    return rows


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("temperature", [1.0, 0.2, PER_ROW], ids=["1", "0.2", "per row"])
@pytest.mark.parametrize("exclude_BT", [None, EXCLUDE], ids=["all", "excluded"])
def test_every_answer_follows_the_definition(path, temperature, exclude_BT):
    query_BD, item_ND = embeddings()
    law = build(path, query_BD, item_ND, temperature=temperature, exclude_BT=exclude_BT)
    slow = slow_law(query_BD, item_ND, temperature, exclude_BT)
    value_NC = torch.rand(N, C, dtype=torch.float64)

    item_BT = torch.arange(N).expand(B, N)
    wanted = [[math.log(p) if p else -math.inf for p in row] for row in slow]
    wanted = torch.tensor(wanted, dtype=torch.float64)
    torch.testing.assert_close(law.log_prob(item_BT), wanted, rtol=1e-10, atol=1e-10)
    for b, row in enumerate(slow):
        entropy = -sum(p * math.log(p) for p in row if p)
        assert law.entropy()[b].item() == pytest.approx(entropy, rel=1e-10)
        assert law.perplexity()[b].item() == pytest.approx(math.exp(entropy), rel=1e-10)
        for c in range(C):
            mean = sum(p * v for p, v in zip(row, value_NC[:, c].tolist(), strict=True))
            assert law.mean(value_NC)[b, c].item() == pytest.approx(mean, rel=1e-10)


@pytest.mark.parametrize("exclude_BT", [None, EXCLUDE], ids=["all", "excluded"])
def test_the_two_paths_have_the_same_gradients(exclude_BT):
    item_B = torch.tensor([1, 0, 3, 7])
    value_NC = torch.rand(N, C, dtype=torch.float64)
    grads = []
    for path in PATHS:
        query_BD, item_ND = embeddings()
        temperature = PER_ROW.clone().requires_grad_()
        law = build(path, query_BD, item_ND, temperature=temperature, exclude_BT=exclude_BT)
        total = law.log_prob(item_B).square().sum() + law.entropy().square().sum()
        total = total + law.mean(value_NC).square().sum()
        grads.append(torch.autograd.grad(total, (query_BD, item_ND, temperature)))
    for dense, streamed in zip(*grads, strict=True):
        torch.testing.assert_close(streamed, dense, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("path", PATHS)
def test_what_the_mean_leaves_behind_is_what_the_others_need(path):
    query_BD, item_ND = embeddings()
    item_B = torch.tensor([1, 0, 3, 7])
    value_NC = torch.rand(N, C, dtype=torch.float64)
    first = build(path, query_BD, item_ND, exclude_BT=EXCLUDE)
    first.mean(value_NC)
    second = build(path, query_BD, item_ND, exclude_BT=EXCLUDE)
    torch.testing.assert_close(first.entropy(), second.entropy())
    torch.testing.assert_close(first.log_prob(item_B), second.log_prob(item_B))
    other_NC = value_NC.flip(0)
    torch.testing.assert_close(first.mean(other_NC), second.mean(other_NC))


@pytest.mark.parametrize("path", PATHS)
def test_excluded_items_have_probability_zero_in_every_answer(path):
    law = build(path, *embeddings(), exclude_BT=EXCLUDE)
    log_prob = law.log_prob(torch.tensor([[8, 0], [8, 0], [4, 2], [5, 6]]))
    assert (log_prob == -math.inf).tolist() == [
        [True, True],
        [False, False],
        [True, True],
        [True, False],
    ]
    share_BN = law.mean(torch.eye(N, dtype=torch.float64))
    hidden = [[0, 8], [], [2, 4], [5]]
    for b in range(B):
        assert [i for i in range(N) if share_BN[b, i] == 0] == hidden[b]
    torch.testing.assert_close(share_BN.sum(1), torch.ones(B, dtype=torch.float64))


@pytest.mark.parametrize("path", PATHS)
def test_log_prob_of_a_table_is_zero_at_the_padding(path):
    law = build(path, *embeddings(), exclude_BT=EXCLUDE)
    table = law.log_prob(torch.tensor([[3, -1], [-1, -1], [1, 3], [-1, 0]]))
    assert (table == 0).tolist() == [[False, True], [True, True], [False, False], [True, False]]
    single = law.log_prob(torch.tensor([3, -1, 1, 0]))
    assert single.tolist() == [table[0, 0], 0.0, table[2, 0], table[3, 1]]


@pytest.mark.parametrize("exclude_BT", [None, EXCLUDE], ids=["all", "excluded"])
@pytest.mark.parametrize("path", PATHS)
def test_the_log_likelihood_is_the_sum_over_a_rows_items(path, exclude_BT):
    item_BT = torch.tensor([[3, 1, -1], [-1, -1, -1], [1, 1, 3], [-1, 0, 6]])
    vectors = embeddings()
    law = build(path, *vectors, temperature=PER_ROW, exclude_BT=exclude_BT)
    rows = [
        sum(law.log_prob(item_BT[b : b + 1].expand(B, -1))[b, place] for place in places)
        for b, places in enumerate([(0, 1), (), (0, 1, 2), (1, 2)])
    ]
    found_B, wanted_B = law.log_likelihood(item_BT), torch.stack([torch.as_tensor(r) for r in rows])
    torch.testing.assert_close(found_B, wanted_B.double(), rtol=1e-10, atol=1e-10)
    for found, wanted in zip(
        torch.autograd.grad(found_B.square().sum(), vectors, retain_graph=True),
        torch.autograd.grad(wanted_B.square().sum(), vectors),
        strict=True,
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)
        assert wanted.abs().max() > 1e-3
    nothing_BT = torch.full((B, 2), -1)
    assert law.log_likelihood(nothing_BT).tolist() == [0.0] * B


@pytest.mark.parametrize("path", PATHS)
def test_no_row_is_likely_that_holds_an_excluded_item(path):
    law = build(path, *embeddings(), exclude_BT=EXCLUDE)
    item_BT = torch.tensor([[1, 8], [8, -1], [1, 3], [5, -1]])
    assert (law.log_likelihood(item_BT) == -math.inf).tolist() == [True, False, False, True]


@pytest.mark.parametrize("path", PATHS)
def test_another_temperature_replaces_the_first(path):
    query_BD, item_ND = embeddings()
    law = build(path, query_BD, item_ND, temperature=3.0, exclude_BT=EXCLUDE)
    wanted = build(path, query_BD, item_ND, temperature=0.5, exclude_BT=EXCLUDE).entropy()
    torch.testing.assert_close(law.with_temperature(0.5).entropy(), wanted)
    per_row = law.with_temperature(torch.full((B,), 0.5, dtype=torch.float64))
    torch.testing.assert_close(per_row.entropy(), wanted)


@pytest.mark.parametrize("path", PATHS)
def test_the_same_temperature_gives_the_same_object(path):
    law = build(path, *embeddings())
    assert law.with_temperature(0.5) is law.with_temperature(0.5)
    assert law.with_temperature(0.5) is not law.with_temperature(0.6)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_a_bad_temperature_is_refused(bad):
    query_BD, item_ND = embeddings()
    for path in PATHS:
        with pytest.raises(ValueError, match=f"temperature={bad!r}: expected a positive"):
            build(path, query_BD, item_ND, temperature=bad)
    with pytest.raises(ValueError, match="temperature="):
        build("dense", query_BD, item_ND).with_temperature(bad)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("k", [1.05, 2.0, 4.5, 5.9])
def test_at_perplexity_reaches_k(path, k):
    query_BD, item_ND = embeddings()
    law = build(path, query_BD, item_ND, exclude_BT=EXCLUDE).at_perplexity(k)
    perplexity = law.perplexity().detach()
    torch.testing.assert_close(perplexity, torch.full_like(perplexity, k), rtol=1e-8, atol=0)
    with torch.no_grad():
        fixed = build(path, query_BD, item_ND, exclude_BT=EXCLUDE).at_perplexity(k)
    assert not fixed.temperature.requires_grad
    torch.testing.assert_close(fixed.temperature, law.temperature.detach())


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_at_perplexity_does_not_depend_on_the_scale_of_the_scores(path, scale):
    value_NC = torch.rand(N, C, dtype=torch.float64)
    unit = build(path, *embeddings()).at_perplexity(3.0)
    scaled = build(path, *embeddings(scale)).at_perplexity(3.0)
    torch.testing.assert_close(scaled.mean(value_NC), unit.mean(value_NC), rtol=1e-6, atol=0)


@pytest.mark.parametrize("path", PATHS)
def test_at_perplexity_works_in_single_precision(path):
    torch.manual_seed(0)
    query_BD, item_ND = torch.randn(200, 16) * 0.3, torch.randn(1000, 16) * 0.3
    for k in (2, 20, 500):
        perplexity = build(path, query_BD, item_ND).at_perplexity(k).perplexity()
        torch.testing.assert_close(perplexity, torch.full_like(perplexity, k), rtol=2e-4, atol=0)


@pytest.mark.parametrize("path", PATHS)
def test_the_gradient_passes_through_the_temperature_found(path):
    value_NC = torch.rand(N, C, dtype=torch.float64)

    def soft_top(query_BD, item_ND):
        law = build(path, query_BD, item_ND, exclude_BT=EXCLUDE).at_perplexity(3.0, tolerance=1e-9)
        return law.mean(value_NC)

    assert torch.autograd.gradcheck(soft_top, embeddings(), atol=1e-6)


def test_a_perplexity_is_found_in_few_passes(monkeypatch):
    """False position without the Illinois rule takes up to 27 here."""
    passes, entropy = [], ItemDistribution.entropy
    monkeypatch.setattr(ItemDistribution, "entropy", lambda self: passes.append(1) or entropy(self))
    torch.manual_seed(0)
    for k in (2, 20, 500):
        passes.clear()
        ItemDistribution.from_logits(torch.randn(200, 1000)).at_perplexity(k)
        assert len(passes) <= 16


@pytest.mark.parametrize("path", PATHS)
def test_the_entropy_at_a_perplexity_has_no_gradient(path):
    query_BD, item_ND = embeddings()
    law = build(path, query_BD, item_ND)
    free = torch.autograd.grad(law.entropy().sum(), (query_BD, item_ND), retain_graph=True)
    held = torch.autograd.grad(law.at_perplexity(3.0).entropy().sum(), (query_BD, item_ND))
    for without, within in zip(free, held, strict=True):
        assert without.abs().max() > 1e-2
        assert within.abs().max() < 1e-6


@pytest.mark.parametrize("k", [1, 0.5, -2, 6, 7, math.nan, math.inf])
@pytest.mark.parametrize("path", PATHS)
def test_a_perplexity_out_of_range_is_refused(path, k):
    # Row 0 leaves out three different items of nine, so k must stay below 6; duplicates count once.
    exclude_BT = torch.tensor([[0, 8, 1, -1], [-1, -1, -1, -1], [4, 4, 2, 2], [5, -1, 5, 5]])
    law = build(path, *embeddings(), exclude_BT=exclude_BT)
    with pytest.raises(ValueError, match=f"k={k!r}: .* above 1 and below 6"):
        law.at_perplexity(k)


def test_tied_scores_that_no_temperature_can_tell_apart_are_refused():
    logits_BN = torch.tensor([[3.0, 2.0, 1.0, 0.0], [1.0, 1.0, 1.0, 0.0]], dtype=torch.float64)
    law = ItemDistribution.from_logits(logits_BN)
    with pytest.raises(ValueError, match=r"k=2: row 1 .* perplexity of 3 at best: .* untied"):
        law.at_perplexity(2)
    assert law.at_perplexity(3.5).perplexity().tolist() == pytest.approx([3.5, 3.5])


def test_num_items_and_completeness():
    query_BD, item_ND = embeddings()
    whole = ItemDistribution.from_embeddings(query_BD, item_ND)
    sample = ItemDistribution.from_logits(torch.zeros(2, 5), complete=False)
    assert (whole.num_items, whole.complete) == (N, True)
    assert (sample.num_items, sample.complete) == (5, False)
    assert not sample.with_temperature(2.0).complete


@pytest.mark.parametrize("path", ["dense", "streaming"])
def test_a_look_without_gradients_leaves_later_gradients_whole(path):
    query_BD = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    item_ND = torch.randn(9, 4, dtype=torch.float64)
    item_B = torch.tensor([0, 5, 8])

    def law():
        if path == "dense":
            return ItemDistribution.from_logits(query_BD @ item_ND.T)
        return ItemDistribution.from_embeddings(query_BD, item_ND)

    looked_at = law()
    with torch.no_grad():
        looked_at.entropy(), looked_at.mean(item_ND), looked_at.log_prob(item_B)
    (after,) = torch.autograd.grad(looked_at.log_prob(item_B).sum(), query_BD)
    (fresh,) = torch.autograd.grad(law().log_prob(item_B).sum(), query_BD)
    assert torch.equal(after, fresh)


# ---- against another law ------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("exclude_BT", [None, EXCLUDE], ids=["all", "excluded"])
def test_mean_scores_follow_the_definition(path, exclude_BT):
    """E_Q[s / temperature] of the law's own scores and of two others', one with its own items."""
    query_BD, item_ND = embeddings()
    other_BD, other_ND = torch.randn(B, D).double(), torch.randn(N, 5).double()
    wide_BD = torch.randn(B, 5).double()
    law = build(path, query_BD, item_ND, temperature=0.8, exclude_BT=exclude_BT)
    others = [(other_BD, item_ND, PER_ROW), (wide_BD, other_ND, 2.0)]
    built = [build(path, q, k, temperature=t) for q, k, t in others]
    slow = slow_law(query_BD, item_ND, 0.8, exclude_BT)
    wanted = [
        [
            sum(
                slow[b][i] * float((q[b] @ k[i]).detach()) / (float(t[b]) if t is PER_ROW else t)
                for i in range(N)
            )
            for q, k, t in [(query_BD, item_ND, 0.8), *others]
        ]
        for b in range(B)
    ]
    wanted = torch.tensor(wanted, dtype=torch.float64)
    torch.testing.assert_close(law.mean_scores(law, *built), wanted, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(law.mean_scores(built[1]), wanted[:, 2:], rtol=1e-10, atol=1e-12)


def test_mean_scores_count_an_impossible_item_as_nothing():
    logits_BN = torch.tensor([[1.0, 2.0, -torch.inf]], dtype=torch.float64, requires_grad=True)
    law = ItemDistribution.from_logits(logits_BN)
    p = 1 / (1 + math.exp(-1))
    assert law.mean_scores(law).item() == pytest.approx(1 + p, rel=1e-12)
    (gradient_BN,) = torch.autograd.grad(law.mean_scores(law).sum(), logits_BN)
    assert bool(torch.isfinite(gradient_BN).all())


@pytest.mark.parametrize("path", PATHS)
def test_same_support_compares_sets(path):
    query_BD, item_ND = embeddings()

    def law(exclude):
        exclude_BT = None if exclude is None else torch.tensor([exclude] * B)
        return build(path, query_BD, item_ND, exclude_BT=exclude_BT)

    equal = [([1, 2], [2, 1]), ([1, -1], [1, 1]), ([-1], None), (None, None), ([3, 3, -1], [3])]
    for one, two in equal:
        assert law(one).same_support(law(two)) and law(two).same_support(law(one)), (one, two)
    for one, two in [([1, 2], [1]), ([1], [2]), ([0], None), ([0, -1], [-1, -1])]:
        assert not law(one).same_support(law(two)), (one, two)
        assert not law(two).same_support(law(one)), (one, two)


def test_mean_scores_refuse_laws_of_another_kind():
    query_BD, item_ND = embeddings()
    law = build("streaming", query_BD, item_ND)
    message = r"laws: one is from \(4, 9\) logits, this one from embeddings of 4 rows and 9 items"
    with pytest.raises(ValueError, match=message):
        law.mean_scores(law, build("dense", query_BD, item_ND))
    for other in (build("streaming", query_BD[1:], item_ND), law.from_logits(torch.zeros(B, N))):
        with pytest.raises(ValueError, match="expected the same rows, items and kind"):
            law.mean_scores(other)


# ---- other laws of the same scores --------------------------------------------------------------


def both_paths():
    torch.manual_seed(4)
    query_BD, item_ND = torch.randn(3, 4).double(), torch.randn(9, 4).double()
    taken_BT = torch.tensor([[2, 5, -1], [-1, -1, -1], [0, 1, 8]])
    dense = ItemDistribution.from_logits(query_BD @ item_ND.T, temperature=0.7, exclude_BT=taken_BT)
    streamed = ItemDistribution.from_embeddings(
        query_BD, item_ND, temperature=0.7, exclude_BT=taken_BT
    )
    return query_BD @ item_ND.T, taken_BT, (dense, streamed)


def test_scores_are_those_before_the_temperature_without_what_is_excluded():
    score_BN, taken_BT, laws = both_paths()
    for law in laws:
        assert (law.num_rows, law.dtype) == (3, torch.float64)
        for row in range(3):
            got_N = law.scores(slice(row, row + 1))[0]
            taken = {item for item in taken_BT[row].tolist() if item >= 0}
            for item in range(9):
                wanted = -math.inf if item in taken else score_BN[row, item].item()
                assert got_N[item].item() == pytest.approx(wanted, abs=1e-12)


def test_without_replaces_what_is_excluded_and_nothing_else():
    score_BN, _, laws = both_paths()
    for law in laws:
        left = law.without(torch.tensor([[3], [-1], [4]]))
        hidden_BN = torch.zeros(3, 9, dtype=torch.bool)
        hidden_BN[0, 3] = hidden_BN[2, 4] = True
        wanted_BN = (score_BN / 0.7).masked_fill(hidden_BN, -torch.inf).log_softmax(1)
        got_BN = left.log_prob(torch.arange(9).expand(3, -1))
        torch.testing.assert_close(got_BN, wanted_BN, rtol=1e-12, atol=1e-12)


def test_plus_adds_a_product_to_the_scores_before_the_temperature():
    score_BN, taken_BT, laws = both_paths()
    weight_BC, value_NC = torch.randn(3, 2).double(), torch.randn(9, 2).double()
    for law in laws:
        moved_BN = (score_BN + weight_BC @ value_NC.T) / 0.7
        hidden_BN = torch.zeros(3, 9, dtype=torch.bool)
        row, place = (taken_BT >= 0).nonzero(as_tuple=True)
        hidden_BN[row, taken_BT[row, place]] = True
        wanted_BN = moved_BN.masked_fill(hidden_BN, -torch.inf).log_softmax(1)
        got_BN = law.plus(weight_BC, value_NC).log_prob(torch.arange(9).expand(3, -1))
        torch.testing.assert_close(got_BN, wanted_BN, rtol=1e-12, atol=1e-12)
