"""The information-theoretic terms against loops over the definition.

Shape letters: B rows, N items, C categories, T items of a padded table.
"""

import functools
import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from inforec import distribution, regularizers
from inforec.distribution import ItemDistribution
from inforec.streaming import catalogue_pass

B, N, D, C = 3, 6, 2, 4


def randn(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def simplex(*shape):
    rows = torch.rand(*shape, dtype=torch.float64)
    return rows / rows.sum(1, keepdim=True)


def slow_kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(5)


@pytest.fixture(params=["dense", "streaming"])
def law(request):
    """(the distribution, its probabilities as lists, what it was built from)"""
    query_BD, item_ND = randn(B, D), randn(N, D)
    if request.param == "dense":
        built = ItemDistribution.from_logits(query_BD @ item_ND.T)
    else:
        built = ItemDistribution.from_embeddings(query_BD, item_ND)
    return built, (query_BD @ item_ND.T).softmax(1).tolist(), (query_BD, item_ND)


def category_rows(probabilities, category_NC):
    return [
        [sum(p * category_NC[i, c].item() for i, p in enumerate(row)) for c in range(C)]
        for row in probabilities
    ]


def test_kl_follows_the_definition():
    p_BC, q_BC = simplex(B, C), simplex(B, C)
    slow = [slow_kl(p, q) for p, q in zip(p_BC.tolist(), q_BC.tolist(), strict=True)]
    assert regularizers.kl(p_BC, q_BC).tolist() == pytest.approx(slow, rel=1e-12)


def test_kl_known_values():
    p_BC = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.2, 0.3, 0.5], [0.5, 0.5, 0.0]])
    q_BC = torch.tensor([[0.25, 0.75, 0.0], [0.5, 0.25, 0.25], [0.2, 0.3, 0.5], [1.0, 0.0, 0.0]])
    wanted = [0.5 * math.log(2) + 0.5 * math.log(2 / 3), math.log(2), 0.0, math.inf]
    assert regularizers.kl(p_BC, q_BC).tolist() == pytest.approx(wanted, abs=1e-7)


def test_kl_gradient_where_p_is_zero_is_finite():
    p_BC = torch.tensor([[0.5, 0.5, 0.0]], dtype=torch.float64)
    q_BC = torch.tensor([[0.25, 0.65, 0.1]], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(regularizers.kl(p_BC, q_BC).sum(), q_BC)
    assert gradient[0].tolist() == pytest.approx([-0.5 / 0.25, -0.5 / 0.65, 0.0])


def test_category_kl_follows_the_definition(law):
    built, probabilities, _ = law
    interest_BC, category_NC = simplex(B, C), simplex(N, C)
    q_BC = category_rows(probabilities, category_NC)
    slow = [slow_kl(p, q) for p, q in zip(interest_BC.tolist(), q_BC, strict=True)]
    ours = regularizers.category_kl(built, interest_BC, category_NC)
    assert ours.tolist() == pytest.approx(slow, rel=1e-10)


def test_category_kl_gradient_is_the_one_of_the_book():
    logits_BN, interest_BC, category_NC = randn(B, N), simplex(B, C), simplex(N, C)
    built = ItemDistribution.from_logits(logits_BN)
    total = regularizers.category_kl(built, interest_BC, category_NC).sum()
    (gradient,) = torch.autograd.grad(total, logits_BN)
    for b in range(B):
        pi = logits_BN[b].softmax(0).tolist()
        q = category_rows([pi], category_NC)[0]
        wanted = [
            pi[i]
            * (
                1
                - sum(category_NC[i, c].item() * interest_BC[b, c].item() / q[c] for c in range(C))
            )
            for i in range(N)
        ]
        assert gradient[b].tolist() == pytest.approx(wanted, abs=1e-12)


def test_item_kl_follows_the_definition(law):
    built, probabilities, _ = law
    item_BT = torch.tensor([[4, 0, -1], [2, -1, -1], [1, 3, 5]])
    weight_BT = torch.tensor([[0.25, 0.75, 0.0], [1.0, 0.0, 0.0], [0.2, 0.3, 0.5]]).double()
    slow = []
    for b in range(B):
        pairs = zip(item_BT[b].tolist(), weight_BT[b].tolist(), strict=True)
        slow.append(sum(w * math.log(w / probabilities[b][i]) for i, w in pairs if i >= 0))
    ours = regularizers.item_kl(built, item_BT, weight_BT)
    assert ours.tolist() == pytest.approx(slow, rel=1e-10)


def test_item_kl_of_the_law_itself_is_zero(law):
    built, probabilities, _ = law
    weight_BN = torch.tensor(probabilities, dtype=torch.float64)
    ours = regularizers.item_kl(built, torch.arange(N).expand(B, N), weight_BN)
    assert ours.tolist() == pytest.approx([0.0] * B, abs=1e-12)


def test_entropies_follow_the_definition(law):
    built, probabilities, _ = law
    category_NC = simplex(N, C)
    category_NC[:, 2] = 0.0  # a category that nobody has: 0 log 0 counts as 0
    items = [-sum(p * math.log(p) for p in row) for row in probabilities]
    rows = category_rows(probabilities, category_NC)
    categories = [-sum(p * math.log(p) for p in row if p) for row in rows]
    assert regularizers.entropy(built).tolist() == pytest.approx(items, rel=1e-10)
    ours = regularizers.category_entropy(built, category_NC)
    assert ours.tolist() == pytest.approx(categories, rel=1e-10)


def test_equal_scores_have_the_entropy_log_n():
    built = ItemDistribution.from_logits(torch.full((2, 7), 3.0))
    assert regularizers.entropy(built).tolist() == pytest.approx([math.log(7)] * 2)


def test_entropy_gradient_is_the_one_of_the_book():
    logits_BN = randn(B, N)
    total = regularizers.entropy(ItemDistribution.from_logits(logits_BN))
    (gradient,) = torch.autograd.grad(total.sum(), logits_BN)
    pi_BN = logits_BN.detach().softmax(1)
    entropy_B1 = -(pi_BN * pi_BN.log()).sum(1, keepdim=True)
    torch.testing.assert_close(gradient, -pi_BN * (pi_BN.log() + entropy_B1))


def test_gradcheck_through_embeddings():
    interest_BC, category_NC = simplex(B, C), simplex(N, C)
    item_BT = torch.tensor([[4, 0, -1], [2, -1, -1], [1, 3, 5]])
    weight_BT = torch.tensor([[0.25, 0.75, 0.0], [1.0, 0.0, 0.0], [0.2, 0.3, 0.5]]).double()

    def terms(query_BD, item_ND):
        built = ItemDistribution.from_embeddings(query_BD, item_ND)
        return (
            regularizers.category_kl(built, interest_BC, category_NC),
            regularizers.item_kl(built, item_BT, weight_BT),
            regularizers.entropy(built),
            regularizers.category_entropy(built, category_NC),
        )

    assert torch.autograd.gradcheck(terms, (randn(B, D), randn(N, D)))


@pytest.mark.parametrize(
    "term",
    [
        lambda law: regularizers.category_kl(law, torch.ones(2, 1), torch.ones(5, 1)),
        lambda law: regularizers.item_kl(law, torch.zeros(2, 1).long(), torch.ones(2, 1)),
        regularizers.entropy,
        lambda law: regularizers.category_entropy(law, torch.ones(5, 1)),
        lambda law: regularizers.bidirectional_kl(law, law),
    ],
    ids=["category_kl", "item_kl", "entropy", "category_entropy", "bidirectional_kl"],
)
def test_every_term_refuses_a_law_over_sampled_candidates(term):
    whole = ItemDistribution.from_logits(torch.zeros(2, 5))
    assert torch.isfinite(term(whole)).all()
    sample = ItemDistribution.from_logits(torch.zeros(2, 5), complete=False)
    with pytest.raises(ValueError, match="5 sampled candidates"):
        term(sample)


def test_a_category_nobody_wants_or_gets_leaves_the_gradients_finite():
    # At this temperature the last item's probability underflows to 0, and so does its category.
    category_NC = torch.eye(3)
    interest_BC = torch.tensor([[0.5, 0.5, 0.0]])
    logits_BN = torch.tensor([[1.0, 0.9, -300.0]], requires_grad=True)
    law = ItemDistribution.from_logits(logits_BN)
    assert float(law.mean(category_NC)[0, 2].detach()) == 0.0
    for value_B in (
        regularizers.category_kl(law, interest_BC, category_NC),
        regularizers.category_entropy(law, category_NC),
    ):
        (gradient_BN,) = torch.autograd.grad(value_B.sum(), logits_BN, retain_graph=True)
        assert bool(torch.isfinite(gradient_BN).all()) and bool((gradient_BN[:, :2] != 0).all())


# ---- bidirectional KL ---------------------------------------------------------------------------

PATHS = ["dense", "streaming"]
SAME_ITEMS = torch.tensor([[1, -1, 4], [-1, -1, -1], [0, 0, 5]])


def build(path, query_BD, item_ND, **options):
    if path == "dense":
        return ItemDistribution.from_logits(query_BD @ item_ND.T, **options)
    return ItemDistribution.from_embeddings(query_BD, item_ND, **options)


def slow_bidirectional_kl(laws):
    first, second = laws
    return [
        (slow_kl(p, q) + slow_kl(q, p)) / 2
        for p, q in zip(first.tolist(), second.tolist(), strict=True)
    ]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("shared", [True, False], ids=["one item table", "two item tables"])
@pytest.mark.parametrize("exclude_BT", [None, SAME_ITEMS], ids=["all", "excluded"])
def test_bidirectional_kl_follows_the_definition(path, shared, exclude_BT):
    queries = randn(B, D), randn(B, D)
    items = [randn(N, D), randn(N, D)]
    if shared:
        items[1] = items[0]
    temperatures = 0.6, torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    # The same items, in another order and with another padding.
    excluded = exclude_BT, None if exclude_BT is None else SAME_ITEMS.flip(1)
    built, slow = [], []
    for query_BD, item_ND, temperature, exclude in zip(
        queries, items, temperatures, excluded, strict=True
    ):
        built.append(build(path, query_BD, item_ND, temperature=temperature, exclude_BT=exclude))
        column = temperature if isinstance(temperature, float) else temperature[:, None]
        score_BN = (query_BD @ item_ND.T).detach() / column
        if exclude is not None:
            for b, row in enumerate(exclude.tolist()):
                score_BN[b, [i for i in row if i >= 0]] = -math.inf
        slow.append(score_BN.softmax(1))
    ours = regularizers.bidirectional_kl(*built)
    assert ours.tolist() == pytest.approx(slow_bidirectional_kl(slow), rel=1e-10)
    swapped = regularizers.bidirectional_kl(*built[::-1])
    torch.testing.assert_close(swapped, ours, rtol=1e-12, atol=0)


class Largest(TorchDispatchMode):
    """Remembers the number of elements of the largest tensor that an operation made."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for leaf in torch.utils._pytree.tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self.elements = max(self.elements, leaf.numel())
        return out


@pytest.mark.parametrize("shared", [True, False], ids=["one item table", "two item tables"])
def test_bidirectional_kl_streams_what_the_matrix_gives(monkeypatch, shared):
    """In blocks, with wide scores: value and gradient of the dense path, without its matrix."""
    rows, items, blocks = 50, 400, 20
    inputs = [randn(rows, D), randn(rows, D), randn(items, D), randn(items, D)]
    in_blocks = functools.partial(catalogue_pass, block_elements=rows * items // blocks)
    monkeypatch.setattr(distribution, "catalogue_pass", in_blocks)
    results, largest = [], []
    for path in PATHS:
        with Largest() as made:
            tables = inputs[2], inputs[2 if shared else 3]
            laws = [
                build(path, 3 * query_BD, item_ND, temperature=0.7)
                for query_BD, item_ND in zip(inputs[:2], tables, strict=True)
            ]
            value_B = regularizers.bidirectional_kl(*laws)
            gradients = torch.autograd.grad(value_B.sum(), inputs[: 3 if shared else 4])
        results.append((value_B, *gradients))
        largest.append(made.elements)
    for dense, streaming in zip(*results, strict=True):
        torch.testing.assert_close(streaming, dense, rtol=1e-11, atol=1e-11)
        assert dense.abs().max() > 1e-3
    assert largest[0] >= rows * items and largest[1] <= max(items * 2 * D, rows * items // blocks)


@pytest.mark.parametrize("path", PATHS)
def test_bidirectional_kl_gradcheck(path):
    def value(query_BD, other_BD, item_ND, other_ND):
        laws = (
            build(path, query_BD, item_ND, temperature=0.8, exclude_BT=SAME_ITEMS),
            build(path, other_BD, other_ND, exclude_BT=SAME_ITEMS),
        )
        shared = build(path, other_BD, item_ND, exclude_BT=SAME_ITEMS)
        return regularizers.bidirectional_kl(*laws), regularizers.bidirectional_kl(laws[0], shared)

    inputs = randn(B, D), randn(B, D), randn(N, D), randn(N, D)
    assert torch.autograd.gradcheck(value, inputs)


@pytest.mark.parametrize("path", PATHS)
def test_bidirectional_kl_known_values(path):
    query_BD, item_ND = randn(B, D), randn(N, D)
    law = build(path, query_BD, item_ND)
    assert regularizers.bidirectional_kl(law, law).tolist() == [0.0] * B
    again = build(path, query_BD.clone(), item_ND.clone())
    assert regularizers.bidirectional_kl(law, again).tolist() == pytest.approx([0.0] * B, abs=1e-14)
    # Two items, (3/4, 1/4) and the reverse: both directions are log(3) / 2.
    half = math.log(3) / 2
    one = build(path, torch.tensor([[half, 0.0]]), torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    two = build(path, torch.tensor([[-half, 0.0]]), torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    assert regularizers.bidirectional_kl(one, two).item() == pytest.approx(half, rel=1e-6)


def test_bidirectional_kl_says_what_does_not_fit():
    query_BD, item_ND = randn(B, D), randn(N, D)
    law = build("streaming", query_BD, item_ND)
    hides = build("streaming", query_BD, item_ND, exclude_BT=SAME_ITEMS)
    hides_more = build("streaming", query_BD, item_ND, exclude_BT=SAME_ITEMS.clamp(min=2))
    for one, two in ((law, hides), (hides, law), (hides, hides_more), (hides_more, hides)):
        with pytest.raises(ValueError, match="exclude different items"):
            regularizers.bidirectional_kl(one, two)
    nothing = build("streaming", query_BD, item_ND, exclude_BT=torch.full((B, 2), -1))
    assert regularizers.bidirectional_kl(law, nothing).tolist() == [0.0] * B
    for other in (
        build("dense", query_BD, item_ND),
        build("streaming", query_BD[:2], item_ND),
        build("streaming", query_BD, item_ND[:4]),
    ):
        with pytest.raises(ValueError, match=r"laws: one is from .* expected the same rows, items"):
            regularizers.bidirectional_kl(law, other)


# ---- rate ---------------------------------------------------------------------------------------


def test_gaussian_rate_follows_the_definition_by_integration():
    """sum_d of the integral of n(z; m, s) log(n(z; m, s) / n(z; 0, 1)), by the trapezoid rule."""
    mean_BD, log_variance_BD = randn(B, D), randn(B, D)

    def log_density(z, mean, variance):
        return -((z - mean) ** 2) / (2 * variance) - math.log(2 * math.pi * variance) / 2

    def integral(mean, variance):
        step = math.sqrt(variance) / 20
        total = 0.0
        for k in range(-400, 401):
            z = mean + k * step
            log_p = log_density(z, mean, variance)
            total += step * math.exp(log_p) * (log_p - log_density(z, 0.0, 1.0))
        return total

    slow = [
        sum(integral(m, math.exp(v)) for m, v in zip(means, log_variances, strict=True))
        for means, log_variances in zip(mean_BD.tolist(), log_variance_BD.tolist(), strict=True)
    ]
    ours = regularizers.gaussian_rate(mean_BD, log_variance_BD)
    assert ours.tolist() == pytest.approx(slow, rel=1e-10)


def test_gaussian_rate_is_the_kl_of_torch_distributions():
    mean_BD, log_variance_BD = randn(B, D), randn(B, D)
    code = torch.distributions.Normal(mean_BD, (log_variance_BD / 2).exp())
    prior = torch.distributions.Normal(torch.zeros_like(mean_BD), torch.ones_like(mean_BD))
    wanted_B = torch.distributions.kl_divergence(code, prior).sum(1)
    torch.testing.assert_close(regularizers.gaussian_rate(mean_BD, log_variance_BD), wanted_B)
    assert torch.autograd.gradcheck(regularizers.gaussian_rate, (randn(B, D), randn(B, D)))


def test_gaussian_rate_known_values():
    zeros = torch.zeros(2, 3)
    assert regularizers.gaussian_rate(zeros, zeros).tolist() == [0.0, 0.0]
    assert regularizers.gaussian_rate(torch.ones(1, 4), torch.zeros(1, 4)).item() == 2.0
    # v^2 / 4 near s = 1: in float32 e^v - 1 - v would lose it to rounding.
    small = torch.full((1, 1), 1e-3)
    rate = regularizers.gaussian_rate(torch.zeros(1, 1), small).item()
    assert rate == pytest.approx(1e-6 / 4, rel=1e-2)
    with pytest.raises(ValueError, match=r"mean_BD has the shape \(2, 3\) and log_variance_BD"):
        regularizers.gaussian_rate(zeros, torch.zeros(2, 4))


# ---- alignment and uniformity -------------------------------------------------------------------


def unit_rows(x_BD):
    rows = []
    for row in x_BD.tolist():
        norm = math.sqrt(sum(v * v for v in row))
        rows.append([v / norm for v in row])
    return rows


def square(x, y):
    return sum((a - b) ** 2 for a, b in zip(x, y, strict=True))


def test_alignment_follows_the_definition():
    query_BD, key_BD = randn(5, 3), randn(5, 3)
    slow = [square(x, y) for x, y in zip(unit_rows(query_BD), unit_rows(key_BD), strict=True)]
    assert regularizers.alignment(query_BD, key_BD).tolist() == pytest.approx(slow, rel=1e-12)
    assert torch.autograd.gradcheck(regularizers.alignment, (query_BD, key_BD))


def test_alignment_known_values():
    x_BD = torch.tensor([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0]])
    y_BD = torch.tensor([[5.0, 0.0], [0.0, 1.0], [-3.0, 0.0]])
    assert regularizers.alignment(x_BD, y_BD).tolist() == [0.0, 2.0, 4.0]
    with pytest.raises(ValueError, match=r"query_BD has the shape \(3, 2\) and key_BD \(2, 2\)"):
        regularizers.alignment(x_BD, y_BD[:2])


@pytest.mark.parametrize("t", [0.5, 2.0, 7.0])
@pytest.mark.parametrize("rows", [2, 5])
def test_uniformity_follows_the_definition(rows, t):
    x_BD = randn(rows, 3)
    units = unit_rows(x_BD)
    terms = [
        math.exp(-t * square(units[b], units[c]))
        for b in range(rows)
        for c in range(rows)
        if b != c
    ]
    slow = math.log(sum(terms) / len(terms))
    assert regularizers.uniformity(x_BD, t).item() == pytest.approx(slow, rel=1e-10)
    assert torch.autograd.gradcheck(lambda x: regularizers.uniformity(x, t), x_BD)


def test_uniformity_with_counts_is_that_of_the_rows_written_out():
    torch.manual_seed(3)
    x_BD = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    count_B = torch.tensor([1, 3, 2, 1])
    counted = regularizers.uniformity(x_BD, count_B=count_B)
    written = regularizers.uniformity(x_BD.repeat_interleave(count_B, dim=0))
    assert counted.item() == pytest.approx(written.item(), rel=1e-12)
    gradients = [torch.autograd.grad(value, x_BD)[0] for value in (counted, written)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)


def test_uniformity_known_values_and_errors():
    x_BD = torch.tensor([[1.0, 0.0], [-4.0, 0.0]])
    assert regularizers.uniformity(x_BD).item() == pytest.approx(-8.0)  # t = 2, d^2 = 4
    assert regularizers.uniformity(torch.ones(3, 2)).item() == pytest.approx(0.0, abs=1e-6)
    # So narrow that every term underflows to 0 in float32.
    assert regularizers.uniformity(x_BD, 100.0).item() == pytest.approx(-400.0)
    single_BD = torch.tensor([[1.0, 2.0]], requires_grad=True)
    value = regularizers.uniformity(single_BD)
    assert value.item() == 0.0
    assert torch.autograd.grad(value, single_BD)[0].tolist() == [[0.0, 0.0]]
    with pytest.raises(ValueError, match=r"t=0: expected a finite number above 0"):
        regularizers.uniformity(x_BD, 0)
    for bad in (torch.zeros(0, 2), torch.zeros(3)):
        with pytest.raises(ValueError, match="x_BD has the shape"):
            regularizers.uniformity(bad)


def test_smoothing_mixes_the_interests_in_and_keeps_the_term_finite():
    logits_BN = torch.tensor([[0.0, 1.0, 2.0]], dtype=torch.float64, requires_grad=True)
    category_NC = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
    interest_BC = torch.tensor([[0.3, 0.7]], dtype=torch.float64)
    law = ItemDistribution.from_logits(logits_BN, exclude_BT=torch.tensor([[0]]))
    assert math.isinf(regularizers.category_kl(law, interest_BC, category_NC).item())
    smoothed = regularizers.category_kl(law, interest_BC, category_NC, smoothing=0.01)
    wanted = 0.3 * math.log(0.3 / 0.003) + 0.7 * math.log(0.7 / (0.99 + 0.007))
    assert smoothed.item() == pytest.approx(wanted, rel=1e-12)
    smoothed.sum().backward()
    assert torch.isfinite(logits_BN.grad).all()
