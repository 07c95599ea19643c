"""Losses against slow loops written from their formulas.

Shape letters: B rows, K negatives or candidates, D embedding size, N items, T positives a row.
"""

import itertools
import math

import pytest
import torch

from inforec import losses
from inforec.distribution import ItemDistribution


def randn(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(11)


# ---- bpr ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("B, K", [(1, 1), (4, 1), (3, 5)])
def test_bpr_is_the_mean_over_pairs(B, K):
    positive_B, negative_BK = randn(B), randn(B, K)
    slow = [
        -math.log(1 / (1 + math.exp(-(positive_B[b] - negative_BK[b, k]).item())))
        for b in range(B)
        for k in range(K)
    ]
    assert losses.bpr(positive_B, negative_BK).item() == pytest.approx(sum(slow) / len(slow))


def test_bpr_gradient_and_known_values():
    assert torch.autograd.gradcheck(losses.bpr, (randn(3), randn(3, 2)))
    assert losses.bpr(torch.zeros(2), torch.zeros(2, 3)).item() == pytest.approx(math.log(2))
    # Stable where sigmoid underflows: -log sigmoid(-1000) = 1000.
    assert losses.bpr(torch.tensor([-500.0]), torch.tensor([[500.0]])).item() == 1000.0


# ---- softmax ------------------------------------------------------------------------------------


def slow_softmax(logits_BN, item_BT):
    values = []
    for b, items in enumerate(item_BT):
        total = sum(math.exp(s) for s in logits_BN[b])
        values += [-math.log(math.exp(logits_BN[b][i]) / total) for i in items if i >= 0]
    return sum(values) / len(values)


@pytest.mark.parametrize(
    "items",
    [[[2], [0], [4]], [[2, 1, -1], [0, -1, -1], [4, 3, 0]], [[-1, -1], [1, -1], [2, 4]]],
    ids=["one", "several", "a row with none"],
)
def test_softmax_is_the_mean_over_interactions_not_rows(items):
    logits_BN = randn(3, 5)
    loss = losses.softmax(ItemDistribution.from_logits(logits_BN), torch.tensor(items))
    assert loss.item() == pytest.approx(slow_softmax(logits_BN.tolist(), items))


def test_softmax_takes_one_positive_a_row():
    logits_BN = randn(3, 5)
    law = ItemDistribution.from_logits(logits_BN)
    loss = losses.softmax(law, torch.tensor([2, 0, 4]))
    assert loss.item() == pytest.approx(slow_softmax(logits_BN.tolist(), [[2], [0], [4]]))


def test_softmax_gradient_is_law_minus_target():
    logits_BN = randn(3, 5)
    item_BT = torch.tensor([[2, 1], [0, -1], [4, 3]])
    loss = losses.softmax(ItemDistribution.from_logits(logits_BN), item_BT)
    (gradient,) = torch.autograd.grad(loss, logits_BN)
    wanted = torch.zeros(3, 5, dtype=torch.float64)
    for b, items in enumerate(item_BT.tolist()):
        for i in items:
            if i >= 0:
                wanted[b] += logits_BN[b].detach().softmax(0) / 5  # five interactions
                wanted[b, i] -= 1 / 5
    torch.testing.assert_close(gradient, wanted)


def test_softmax_gradcheck_through_embeddings():
    item_BT = torch.tensor([[2, 1], [0, -1]])

    def loss(query_BD, item_ND):
        return losses.softmax(ItemDistribution.from_embeddings(query_BD, item_ND), item_BT)

    assert torch.autograd.gradcheck(loss, (randn(2, 3), randn(5, 3)))


def test_softmax_of_equal_scores_is_log_n():
    law = ItemDistribution.from_logits(torch.zeros(2, 7))
    assert losses.softmax(law, torch.tensor([3, 6])).item() == pytest.approx(math.log(7))


def test_softmax_refuses_a_law_over_sampled_candidates():
    law = ItemDistribution.from_logits(torch.zeros(2, 7), complete=False)
    with pytest.raises(ValueError, match="7 sampled candidates"):
        losses.softmax(law, torch.tensor([3, 6]))


# ---- whole rows ---------------------------------------------------------------------------------


TAKEN_BT = torch.tensor([[2, 1, -1], [0, -1, -1], [4, 3, 0], [-1, -1, -1]])


def slow_rows(query_BD, item_ND, taken_BT, price):
    """price(score, x) of every user and item one by one, over the number of interactions."""
    total, count = 0.0, 0
    for query_D, taken in zip(query_BD.tolist(), taken_BT.tolist(), strict=True):
        for item, item_D in enumerate(item_ND.tolist()):
            score = sum(a * b for a, b in zip(query_D, item_D, strict=True))
            total += price(score, float(item in taken))
        count += sum(item >= 0 for item in taken)
    return total / count


def coin(score, x):
    chance = 1 / (1 + math.exp(-score))
    return -(x * math.log(chance) + (1 - x) * math.log(1 - chance))


ROW_PRICES = {losses.logistic: coin, losses.mse: lambda score, x: (x - score) ** 2}


@pytest.mark.parametrize("loss", ROW_PRICES, ids=lambda loss: loss.__name__)
@pytest.mark.parametrize("N", [5, 9])
def test_losses_of_whole_rows_go_over_every_item(loss, N):
    query_BD, item_ND = randn(4, 3), randn(N, 3)
    value = loss(query_BD, item_ND, TAKEN_BT)
    slow = slow_rows(query_BD, item_ND, TAKEN_BT, ROW_PRICES[loss])
    assert value.item() == pytest.approx(slow, rel=1e-12)
    assert torch.autograd.gradcheck(lambda q, k: loss(q, k, TAKEN_BT), (query_BD, item_ND))


def test_losses_of_whole_rows_at_known_values():
    taken_BT = torch.tensor([[0, 1, 2]])
    zero_BD, item_ND = torch.zeros(1, 2), torch.ones(6, 2)
    # Six coins of log 2 each, shared by three items; an error of 1 for each item taken.
    assert losses.logistic(zero_BD, item_ND, taken_BT).item() == pytest.approx(2 * math.log(2))
    assert losses.mse(zero_BD, item_ND, taken_BT).item() == 1.0
    # Stable where sigmoid underflows.
    big_BD = torch.tensor([[1000.0, 0.0]])
    assert losses.logistic(big_BD, item_ND[:3], taken_BT).item() == 0.0
    assert losses.logistic(-big_BD, item_ND[:3], taken_BT).item() == 1000.0


def test_sampled_logistic_is_one_coin_a_column():
    logits_BK = randn(3, 4)
    slow = [coin(s, float(k == 0)) for row in logits_BK.tolist() for k, s in enumerate(row)]
    assert losses.sampled_logistic(logits_BK).item() == pytest.approx(sum(slow) / 3, rel=1e-12)
    assert torch.autograd.gradcheck(losses.sampled_logistic, logits_BK)


def test_sampled_logistic_with_every_other_item_is_the_logistic_loss():
    query_BD, item_ND = randn(2, 3), randn(5, 3)
    score_BN = query_BD @ item_ND.T  # item 0 is the one that each row has taken
    wanted = losses.logistic(query_BD, item_ND, torch.zeros(2, 1).long())
    torch.testing.assert_close(losses.sampled_logistic(score_BN), wanted)


# ---- sampled softmax ----------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_sampled_softmax_follows_its_formula(temperature):
    logits_BK, log_q_BK = randn(3, 4), randn(3, 4).detach() - 2
    slow = []
    for b in range(3):
        s = [x / temperature for x in logits_BK[b].tolist()]
        q = [math.exp(x) for x in log_q_BK[b].tolist()]
        partition = math.exp(s[0]) + sum(math.exp(s[k]) / (3 * q[k]) for k in (1, 2, 3))
        slow.append(-math.log(math.exp(s[0]) / partition))
    loss = losses.sampled_softmax(logits_BK, log_q_BK, temperature)
    assert loss.item() == pytest.approx(sum(slow) / 3, rel=1e-12)


@pytest.mark.parametrize("draws", [1, 2, 3])
def test_sampled_partition_is_unbiased_over_all_draws(draws):
    """Averaged over every draw of a tiny catalogue, the sum in the loss is the true partition."""
    score = [0.3, -1.2, 2.0, 0.7]
    q = [0.1, 0.4, 0.2, 0.3]
    expected = 0.0
    for items in itertools.product(range(4), repeat=draws):
        columns = [0, *items]  # item 0 is the positive
        logits_BK = torch.tensor([[score[i] for i in columns]], dtype=torch.float64)
        log_q = [math.log(q[i]) if i else math.inf for i in columns]  # it counts once
        log_q_BK = torch.tensor([log_q], dtype=torch.float64)
        loss = losses.sampled_softmax(logits_BK, log_q_BK)
        chance = math.prod(q[i] for i in items)
        expected += chance * math.exp(loss.item() + score[0])
    assert expected == pytest.approx(sum(math.exp(s) for s in score), rel=1e-12)


def test_sampled_softmax_over_all_other_items_is_the_full_softmax():
    # Each of the N - 1 others once, drawn uniformly from them: the estimate is exact.
    logits_BN = randn(3, 6)
    log_q_BN = torch.full((3, 6), -math.log(5), dtype=torch.float64)
    full = losses.softmax(ItemDistribution.from_logits(logits_BN), torch.zeros(3).long())
    sampled = losses.sampled_softmax(logits_BN, log_q_BN)
    assert sampled.item() == pytest.approx(full.item(), rel=1e-12)


def test_sampled_softmax_gradient_and_the_column_it_does_not_read():
    log_q_BK = randn(3, 4).detach()
    log_q_BK[1, 2] = math.inf
    assert torch.autograd.gradcheck(lambda s: losses.sampled_softmax(s, log_q_BK, 0.5), randn(3, 4))
    logits_BK = randn(3, 4)
    before = losses.sampled_softmax(logits_BK, log_q_BK)
    log_q_BK[:, 0] = -math.inf
    assert torch.equal(losses.sampled_softmax(logits_BK, log_q_BK), before)


# ---- info_nce -----------------------------------------------------------------------------------


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def cosine_of(a, b):
    return dot(a, b) / math.sqrt(dot(a, a) * dot(b, b))


def slow_info_nce(query, key, temperature, compare):
    slow = 0.0
    for b, x in enumerate(query):
        weight = [math.exp(compare(x, y) / temperature) for y in key]
        slow -= math.log(weight[b] / sum(weight)) / len(query)
    return slow


@pytest.mark.parametrize("two_sided", [False, True], ids=["one side", "two sides"])
@pytest.mark.parametrize("cosine", [True, False], ids=["cosine", "dot"])
@pytest.mark.parametrize("temperature", [1.0, 0.1])
@pytest.mark.parametrize("B, D", [(1, 2), (4, 3)])
def test_info_nce_follows_its_formula(B, D, temperature, cosine, two_sided):
    query_BD, key_BD = randn(B, D), randn(B, D)
    query, key = query_BD.tolist(), key_BD.tolist()
    compare = cosine_of if cosine else dot
    slow = slow_info_nce(query, key, temperature, compare)
    if two_sided:
        slow = (slow + slow_info_nce(key, query, temperature, compare)) / 2
    loss = losses.info_nce(query_BD, key_BD, temperature, cosine=cosine, two_sided=two_sided)
    assert loss.item() == pytest.approx(slow, rel=1e-10, abs=1e-12)


def test_info_nce_is_one_sided_with_cosines_unless_told():
    query_BD, key_BD = randn(4, 3), randn(4, 3)
    plain = losses.info_nce(query_BD, key_BD, 0.3)
    slow = slow_info_nce(query_BD.tolist(), key_BD.tolist(), 0.3, cosine_of)
    assert plain.item() == pytest.approx(slow, rel=1e-10)
    both = losses.info_nce(query_BD, key_BD, 0.3, two_sided=True)
    assert both.item() != pytest.approx(slow, rel=1e-3)
    swapped = losses.info_nce(key_BD, query_BD, 0.3, two_sided=True)
    assert swapped.item() == pytest.approx(both.item(), rel=1e-12)


def test_info_nce_known_value_and_gradient():
    # Orthogonal rows that equal their keys: log(e^1 + (B - 1)) - 1.
    loss = losses.info_nce(torch.eye(5), 3 * torch.eye(5), 1.0)
    assert loss.item() == pytest.approx(math.log(math.e + 4) - 1)
    for options in itertools.product([True, False], repeat=2):
        named = dict(zip(["cosine", "two_sided"], options, strict=True))
        assert torch.autograd.gradcheck(
            lambda q, k, named=named: losses.info_nce(q, k, 0.5, **named),
            (randn(3, 2), randn(3, 2)),
        )


# ---- contrastive margin -------------------------------------------------------------------------


def slow_margin(query, key, margin):
    """The two means, from the definition."""
    positive, negative = [], []
    for b, x in enumerate(query):
        for c, y in enumerate(key):
            distance = math.sqrt(sum((p - q) ** 2 for p, q in zip(x, y, strict=True)))
            if b == c:
                positive.append(distance**2)
            else:
                negative.append(max(0.0, margin - distance) ** 2)
    return sum(positive) / len(positive) + (sum(negative) / len(negative) if negative else 0.0)


@pytest.mark.parametrize("margin", [0.5, 2.0, 10.0])
@pytest.mark.parametrize("B, D", [(1, 2), (2, 3), (5, 3), (30, 2)])
def test_contrastive_margin_follows_its_formula(B, D, margin):
    query_BD, key_BD = randn(B, D), randn(B, D)
    slow = slow_margin(query_BD.tolist(), key_BD.tolist(), margin)
    loss = losses.contrastive_margin(query_BD, key_BD, margin)
    assert loss.item() == pytest.approx(slow, rel=1e-12)


def test_contrastive_margin_known_values_and_gradient():
    # Pairs that agree, at distance sqrt(2) from the others: nothing until the margin reaches them.
    assert losses.contrastive_margin(torch.eye(4), torch.eye(4), 1.0).item() == 0.0
    wanted = (3 - math.sqrt(2)) ** 2
    loss = losses.contrastive_margin(torch.eye(4), torch.eye(4), 3.0)
    assert loss.item() == pytest.approx(wanted)
    assert torch.autograd.gradcheck(
        lambda q, k: losses.contrastive_margin(q, k, 3.0), (randn(4, 2), randn(4, 2))
    )


def test_contrastive_margin_is_exact_and_finite_where_things_coincide():
    """Far from the origin, in float32, at distance 0 and at a distance of 0.001 for the others."""
    key_BD = torch.full((30, 8), 10.0)
    key_BD[1:, 0] += 0.001
    query_BD = key_BD.clone().requires_grad_()
    loss = losses.contrastive_margin(query_BD, key_BD, 1.0)
    slow = slow_margin(query_BD.tolist(), key_BD.tolist(), 1.0)
    assert loss.item() == pytest.approx(slow, rel=1e-6)
    (gradient_BD,) = torch.autograd.grad(loss, query_BD)
    assert bool(torch.isfinite(gradient_BD).all())
    # Only the first row sees others at a distance: 29 of them, each pushes by 2 (1 - 0.001).
    assert gradient_BD[0, 0].item() == pytest.approx(2 * 0.999 * 29 / (30 * 29), rel=1e-4)


# ---- f-MICL -------------------------------------------------------------------------------------

GENERATORS = {  # f, f' and the conjugate f*, from the textbook
    "kl": (
        lambda u: u * math.log(u),
        lambda u: 1 + math.log(u),
        lambda t: math.exp(t - 1),
    ),
    "chi2": (lambda u: (u - 1) ** 2, lambda u: 2 * (u - 1), lambda t: t + t**2 / 4),
    "js": (
        lambda u: u * math.log(u) - (u + 1) * math.log((u + 1) / 2),
        lambda u: math.log(2 * u / (1 + u)),
        lambda t: -math.log(2 - math.exp(t)),
    ),
}


def slow_kernels(query, key, sigma):
    """The Gaussian kernels of all pairs of unit vectors."""

    def unit(x):
        return [v / math.sqrt(dot(x, x)) for v in x]

    return [
        [
            math.exp(
                -sum((p - q) ** 2 for p, q in zip(unit(x), unit(y), strict=True)) / (2 * sigma**2)
            )
            for y in key
        ]
        for x in query
    ]


@pytest.mark.parametrize("weight", [1.0, 3.0])
@pytest.mark.parametrize("sigma", [0.5, 1.5])
@pytest.mark.parametrize("divergence", ["kl", "chi2", "js"])
@pytest.mark.parametrize("B, D", [(1, 2), (2, 3), (5, 3)])
def test_f_micl_follows_its_formula(B, D, divergence, sigma, weight):
    query_BD, key_BD = randn(B, D), randn(B, D)
    kernel = slow_kernels(query_BD.tolist(), key_BD.tolist(), sigma)
    _, slope, conjugate = GENERATORS[divergence]
    positive = [slope(kernel[b][b]) for b in range(B)]
    negative = [conjugate(slope(kernel[b][c])) for b in range(B) for c in range(B) if b != c]
    slow = -sum(positive) / B + (weight * sum(negative) / len(negative) if negative else 0.0)
    options = {"divergence": divergence, "sigma": sigma, "negative_weight": weight}
    loss = losses.f_micl(query_BD, key_BD, **options)
    assert loss.item() == pytest.approx(slow, rel=1e-10, abs=1e-12)
    assert torch.autograd.gradcheck(lambda q, k: losses.f_micl(q, k, **options), (query_BD, key_BD))


@pytest.mark.parametrize("divergence", ["kl", "chi2", "js"])
def test_the_similarity_is_the_one_that_attains_the_divergence(divergence):
    """On a small joint law, s = f'(ratio) makes the bound the f-divergence; others fall short."""
    joint = [[0.3, 0.1], [0.05, 0.55]]
    row = [sum(r) for r in joint]
    column = [sum(r[y] for r in joint) for y in range(2)]
    f = GENERATORS[divergence][0]
    similarity, conjugate = losses._F_GAUSSIAN[divergence]
    exact = bound = worse = 0.0
    for x, y in itertools.product(range(2), repeat=2):
        product = row[x] * column[y]
        ratio = torch.tensor(joint[x][y] / product, dtype=torch.float64)
        exact += product * f(ratio.item())
        values = similarity(ratio.log()), conjugate(ratio.log())
        bound += joint[x][y] * values[0].item() - product * values[1].item()
        tempered = 0.8 * ratio.log()
        worse += joint[x][y] * similarity(tempered).item() - product * conjugate(tempered).item()
    assert bound == pytest.approx(exact, rel=1e-12)
    assert worse < exact - 1e-3


def test_f_micl_with_kl_bounds_info_nce_and_shares_its_gradient():
    """At tau = sigma^2: row by row <= over the batch <= f-MICL; one gradient at the right weight.

    Without the positive in the denominator and with the mean over the negatives in it, InfoNCE is
    -cos_bb / tau + log mean_c exp(cos_bc / tau). Jensen moves the logarithm outside the mean over
    rows, and log v <= v - 1 drops it.
    """
    query_BD, key_BD, sigma = randn(5, 3), randn(5, 3), 0.7
    cosine_BB = torch.cosine_similarity(query_BD[:, None], key_BD[None], dim=2) / sigma**2
    others_BB = cosine_BB[~torch.eye(5, dtype=torch.bool)].view(5, 4)
    positive = cosine_BB.diagonal().mean()
    by_row = (others_BB.logsumexp(1) - math.log(4)).mean() - positive
    batch = others_BB.flatten().logsumexp(0) - math.log(20) - positive
    loss = losses.f_micl(query_BD, key_BD, divergence="kl", sigma=sigma)
    assert by_row.item() < batch.item() - 1e-3 and batch.item() < loss.item() - 1e-3
    # InfoNCE has the positive in its sum too, so it is larger than by_row + log(B - 1).
    full = losses.info_nce(query_BD, key_BD, sigma**2).item()
    assert full > by_row.item() + math.log(4) + 1e-3

    mean_kernel = (others_BB - 1 / sigma**2).exp().mean().item()
    weighted = losses.f_micl(
        query_BD, key_BD, divergence="kl", sigma=sigma, negative_weight=1 / mean_kernel
    )
    ours = torch.autograd.grad(weighted, (query_BD, key_BD))
    theirs = torch.autograd.grad(batch, (query_BD, key_BD), retain_graph=True)
    for left, right in zip(ours, theirs, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-10, atol=1e-12)
        assert right.abs().max() > 1e-2


@pytest.mark.parametrize("divergence", ["kl", "chi2", "js"])
def test_f_micl_is_finite_where_the_kernel_underflows(divergence):
    # Opposite vectors and a narrow kernel: u = exp(-2 / 0.01^2) is 0 in float32.
    query_BD = torch.tensor([[1.0, 0.0], [0.0, 1.0]], requires_grad=True)
    loss = losses.f_micl(query_BD, -query_BD.detach(), divergence=divergence, sigma=0.01)
    (gradient_BD,) = torch.autograd.grad(loss, query_BD)
    assert torch.isfinite(loss) and bool(torch.isfinite(gradient_BD).all())


def test_f_micl_of_equal_pairs():
    # d_bb = 0, so s = f'(1); the others stand at right angles, u = exp(-1 / sigma^2).
    u = math.exp(-1 / 0.8**2)
    for divergence, value in {
        "kl": u - 1,
        "chi2": u**2 - 1,
        "js": math.log((1 + u) / 2),
    }.items():
        loss = losses.f_micl(torch.eye(4), 7 * torch.eye(4), divergence=divergence, sigma=0.8)
        assert loss.item() == pytest.approx(value, rel=1e-5), divergence


# ---- what they refuse ---------------------------------------------------------------------------

IN_BATCH = {
    "info_nce": lambda q, k: losses.info_nce(q, k, 0.5),
    "contrastive_margin": lambda q, k: losses.contrastive_margin(q, k, 1.0),
    "f_micl": lambda q, k: losses.f_micl(q, k, divergence="kl", sigma=1.0),
}


@pytest.mark.parametrize("name", IN_BATCH)
@pytest.mark.parametrize(
    "query, key",
    [((3, 2), (4, 2)), ((3, 2), (3, 1)), ((0, 2), (0, 2)), ((3,), (3,))],
    ids=["rows", "columns", "empty", "one axis"],
)
def test_in_batch_losses_say_which_shapes_they_want(name, query, key):
    with pytest.raises(ValueError, match=rf"query_BD has the shape \({query[0]},.*expected"):
        IN_BATCH[name](torch.zeros(query), torch.zeros(key))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda x: losses.info_nce(x, x, 0.0), "temperature=0.0: expected a finite number above 0"),
        (lambda x: losses.info_nce(x, x, math.nan), "temperature=nan"),
        (lambda x: losses.contrastive_margin(x, x, -1.0), "margin=-1.0: expected"),
        (lambda x: losses.f_micl(x, x, divergence="kl", sigma=0.0), "sigma=0.0: expected"),
        (lambda x: losses.f_micl(x, x, divergence="chi", sigma=1.0), "did you mean 'chi2'"),
        (
            lambda x: losses.f_micl(x, x, divergence="kl", sigma=1.0, negative_weight=-0.5),
            "negative_weight=-0.5: expected a finite number at least 0",
        ),
    ],
)
def test_in_batch_losses_refuse_bad_numbers(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.eye(3))


def test_squared_error_is_a_mean_over_observed_ratings():
    prediction_B = torch.tensor([3.5, 1.0, 4.25], dtype=torch.float64, requires_grad=True)
    rating_B = torch.tensor([4.0, 1.0, 2.0], dtype=torch.float64)
    loss = losses.squared_error(prediction_B, rating_B)
    assert loss.item() == (0.25 + 0.0 + 2.25**2) / 3
    (slope_B,) = torch.autograd.grad(loss, prediction_B)
    assert torch.equal(slope_B, 2 * (prediction_B - rating_B).detach() / 3)
