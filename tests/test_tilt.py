"""The tilt: a certificate of optimality, brute force, limits, a case solved by hand; and its layer.

Shape letters: B users, N items, C categories, D embedding size, T excluded items, S samples.
"""

import math

import pytest
import torch

from inforec import rerank
from inforec.distribution import ItemDistribution
from inforec.regularizers import category_kl, entropy, kl
from inforec.rerank import tilt, tilted

B, N, C, D = 6, 20, 4, 3


def simplex(*shape):
    rows = torch.rand(*shape, dtype=torch.float64)
    return rows / rows.sum(-1, keepdim=True)


@pytest.fixture
def problem():
    """Scores, interests and categories; some interests and many categories are zero."""
    torch.manual_seed(3)
    score_BN = 2 * torch.randn(B, N, dtype=torch.float64)
    interest_BC, category_NC = simplex(B, C), simplex(N, C)
    interest_BC[0] = torch.tensor([0.7, 0.3, 0.0, 0.0])
    interest_BC[1] = torch.tensor([0.0, 0.0, 0.0, 1.0])
    category_NC[:14] = torch.eye(C, dtype=torch.float64)[torch.arange(14) % C]
    category_NC[14:16] = torch.tensor([0.5, 0.5, 0.0, 0.0])
    return score_BN, interest_BC, category_NC


def primal(law_BN, score_BN, interest_BC, category_NC, alpha, temperature):
    """(B,) what is maximised, with 0 log 0 = 0; a score of an item without mass does not count."""
    held = torch.where(law_BN > 0, score_BN, 0.0)
    entropy_B = -torch.special.xlogy(law_BN, law_BN).sum(-1)
    divergence_B = kl(interest_BC, law_BN @ category_NC)
    return (law_BN * held).sum(-1) + temperature * entropy_B - alpha * divergence_B


def bound(multiplier_BC, score_BN, interest_BC, category_NC, alpha, temperature):
    """(B,) an upper bound of the maximum, for any positive multipliers.

    -alpha p log(p / q) = min over lambda > 0 of  lambda q - alpha p log(lambda / alpha) - alpha p,
    and max over Q of <Q, s + A lambda> + temperature H(Q) is a log-sum-exp.
    """
    tilted_BN = score_BN + multiplier_BC @ category_NC.T
    lse_B = temperature * (tilted_BN / temperature).logsumexp(-1)
    log_BC = torch.where(interest_BC > 0, (multiplier_BC / alpha).log(), 0.0)
    return lse_B - alpha * (interest_BC * (log_BC + 1)).sum(-1)


CASES = [(alpha, tau) for alpha in (0.01, 1.0, 50.0) for tau in (0.03, 0.5, 5.0)]


@pytest.mark.parametrize("alpha, temperature", CASES)
def test_the_bound_certifies_the_law(problem, alpha, temperature):
    """The bound holds for every pair of law and multipliers; here it is attained."""
    found = tilt(*problem, alpha=alpha, temperature=temperature, tolerance=1e-10)
    law_BN = (found.score_BN / temperature).softmax(1)
    reached_B = primal(law_BN, *problem, alpha, temperature)
    bound_B = bound(found.multiplier_BC, *problem, alpha, temperature)
    torch.testing.assert_close(reached_B, bound_B, rtol=0, atol=1e-8 * (1 + alpha))
    # The bound is one: neither other multipliers lower it below, nor other laws pass it.
    for _ in range(20):
        other_BC = found.multiplier_BC * torch.exp(0.3 * torch.randn(B, C, dtype=torch.float64))
        assert bool((bound(other_BC, *problem, alpha, temperature) >= reached_B).all())


@pytest.mark.parametrize("alpha, temperature", CASES)
def test_no_other_law_is_better(problem, alpha, temperature):
    found = tilt(*problem, alpha=alpha, temperature=temperature, tolerance=1e-10)
    law_BN = (found.score_BN / temperature).softmax(1)
    reached_B = primal(law_BN, *problem, alpha, temperature)
    for share in (1.0, 0.1, 0.01):
        near_SBN = share * simplex(200, B, N) + (1 - share) * law_BN
        assert bool((primal(near_SBN, *problem, alpha, temperature) < reached_B).all())
    plain_BN = (problem[0] / temperature).softmax(1)
    assert bool((primal(plain_BN, *problem, alpha, temperature) < reached_B).all())


@pytest.mark.parametrize("alpha, temperature", CASES)
def test_the_multipliers_solve_their_equation(problem, alpha, temperature):
    """lambda_c q_c = alpha p_c, with q from the scores that are returned."""
    score_BN, interest_BC, category_NC = problem
    found = tilt(*problem, alpha=alpha, temperature=temperature)
    law_BC = (found.score_BN / temperature).softmax(1) @ category_NC
    error_BC = found.multiplier_BC * law_BC / alpha - interest_BC
    assert float(error_BC.abs().max()) <= 1.01e-6
    torch.testing.assert_close(
        found.score_BN, score_BN + found.multiplier_BC @ category_NC.T, rtol=0, atol=1e-12
    )
    assert bool((found.multiplier_BC[interest_BC == 0] == 0).all())
    assert int(found.steps_B.max()) <= 40


def test_two_categories_by_hand():
    """One-hot: the odds of the categories are those of their masses, times e^(difference / tau)."""
    torch.manual_seed(4)
    alpha, temperature, p = 0.8, 0.4, 0.35
    score_N = torch.randn(9, dtype=torch.float64)
    first_N = torch.arange(9) < 5
    category_NC = torch.stack([first_N, ~first_N], dim=1).double()
    mass = [(score_N[which] / temperature).exp().sum().item() for which in (first_N, ~first_N)]

    def excess(q):
        difference = alpha * p / q - alpha * (1 - p) / (1 - q)
        return math.log(mass[0] / mass[1]) + difference / temperature - math.log(q / (1 - q))

    low, high = 1e-12, 1 - 1e-12  # the excess falls from +inf to -inf
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    found = tilt(
        score_N[None],
        torch.tensor([[p, 1 - p]], dtype=torch.float64),
        category_NC,
        alpha=alpha,
        temperature=temperature,
        tolerance=1e-12,
    )
    assert found.multiplier_BC[0].tolist() == pytest.approx(
        [alpha * p / low, alpha * (1 - p) / (1 - low)], rel=1e-9
    )


def test_alpha_zero_is_the_softmax_and_a_small_alpha_is_near_it(problem):
    score_BN = problem[0]
    assert torch.equal(tilt(*problem, alpha=0.0, temperature=0.5).score_BN, score_BN)
    near = tilt(*problem, alpha=1e-4, temperature=5.0)
    plain_BN, law_BN = (score_BN / 5.0).softmax(1), (near.score_BN / 5.0).softmax(1)
    torch.testing.assert_close(law_BN, plain_BN, rtol=0, atol=1e-3)
    assert float((law_BN - plain_BN).abs().max()) > 1e-7
    # To first order the multipliers are alpha p / q of the softmax itself.
    expected_BC = 1e-4 * problem[1] / (plain_BN @ problem[2])
    torch.testing.assert_close(near.multiplier_BC, expected_BC, rtol=1e-3, atol=0)
    assert int(near.steps_B.max()) <= 1  # it starts from there


def test_a_large_alpha_calibrates(problem):
    found = tilt(*problem, alpha=1e4, temperature=0.5)
    law_BC = (found.score_BN / 0.5).softmax(1) @ problem[2]
    # Users 0 and 1 lack categories that only mixed items could give them as well: p is reachable.
    torch.testing.assert_close(law_BC, problem[1], rtol=0, atol=1e-3)
    plain_BC = (problem[0] / 0.5).softmax(1) @ problem[2]
    assert float((plain_BC - problem[1]).abs().amax(1).min()) > 0.1


@pytest.mark.parametrize("alpha", [0.3, 2.0])
def test_cold_it_finds_the_best_mixture_of_three_items(alpha):
    """At temperature 0 the law of three items can be searched on a grid; it need not be pure."""
    torch.manual_seed(7)
    score_BN = torch.randn(8, 3, dtype=torch.float64)
    interest_BC = simplex(8, 3)
    category_NC = torch.tensor([[1.0, 0, 0], [0, 0.5, 0.5], [0.2, 0, 0.8]], dtype=torch.float64)
    steps = 400
    grid_SN = torch.tensor(
        [[i, j, steps - i - j] for i in range(steps + 1) for j in range(steps + 1 - i)],
        dtype=torch.float64,
    )
    grid_S1N = grid_SN[:, None] / steps
    value_SB = primal(grid_S1N, score_BN, interest_BC, category_NC, alpha, 0.0)
    best_B, place_B = value_SB.max(0)
    temperature = 1e-3
    found = tilt(score_BN, interest_BC, category_NC, alpha=alpha, temperature=temperature)
    law_BN = (found.score_BN / temperature).softmax(1)
    reached_B = primal(law_BN, score_BN, interest_BC, category_NC, alpha, 0.0)
    # The entropy that it still keeps costs at most temperature x log 3.
    assert bool((reached_B >= best_B - temperature * math.log(3)).all())
    assert bool((reached_B <= best_B + 1e-3).all())
    torch.testing.assert_close(law_BN, grid_S1N[place_B, 0], rtol=0, atol=0.02)
    assert bool((law_BN.amax(1) < 0.99).any())


def test_very_cold_and_very_far_it_still_converges(problem):
    """Scores of thousands of temperatures, and a category that only a hopeless item has."""
    score_BN, interest_BC, category_NC = problem
    category_NC[:, 2] = 0
    category_NC /= category_NC.sum(1, keepdim=True).clamp(min=1e-9)
    category_NC[3] = torch.tensor([0.0, 0.0, 1.0, 0.0])
    score_BN[:, 3] = -30.0
    for alpha in (0.01, 1.0, 100.0):
        found = tilt(score_BN, interest_BC, category_NC, alpha=alpha, temperature=2e-3)
        law_BC = (found.score_BN / 2e-3).softmax(1) @ category_NC
        error_BC = found.multiplier_BC * law_BC / alpha - interest_BC
        entering_BC = torch.where(category_NC.sum(0) > 0, error_BC, 0.0)
        assert float(entering_BC.abs().max()) <= 1.01e-6


def test_cooling_saves_steps(problem, monkeypatch):
    settings = {"alpha": 10.0, "temperature": 1e-3}
    cooled = tilt(*problem, **settings)
    monkeypatch.setattr(rerank, "HOT_RANGE", math.inf)
    direct = tilt(*problem, **settings)
    torch.testing.assert_close(cooled.multiplier_BC, direct.multiplier_BC, rtol=1e-4, atol=1e-6)
    assert int(cooled.steps_B.sum()) < int(direct.steps_B.sum())


def test_a_tolerance_that_is_not_reached_is_an_error(problem, monkeypatch):
    monkeypatch.setattr(rerank, "MAX_STEPS", 2)
    with pytest.raises(ValueError, match=r"tolerance=1e-06: a user's error stays at"):
        tilt(*problem, alpha=1.0, temperature=0.1)


@pytest.mark.parametrize("elements", [2**20, 1])
def test_a_batch_equals_its_users_one_by_one(problem, monkeypatch, elements):
    score_BN, interest_BC, category_NC = problem
    temperature_B = torch.linspace(0.1, 3.0, B).double()
    settings = {"alpha": 1.0, "tolerance": 1e-11}
    monkeypatch.setattr(rerank, "TILT_ELEMENTS", elements)
    together = tilt(*problem, temperature=temperature_B, **settings)
    for b in range(B):
        row = slice(b, b + 1)
        alone = tilt(
            score_BN[row], interest_BC[row], category_NC, temperature=float(temperature_B[b]),
            **settings,
        )  # fmt: skip
        torch.testing.assert_close(alone.score_BN[0], together.score_BN[b], rtol=0, atol=1e-8)
        assert alone.steps_B[0] == together.steps_B[b]
    assert len(together.steps_B.unique()) > 1  # rows leave the work at different times


def test_items_of_one_kind_are_one_item_with_their_mass():
    """Splitting an item in n copies with score - temperature log n changes no multiplier."""
    torch.manual_seed(8)
    score_BN, interest_BC, category_NC = torch.randn(3, 6).double(), simplex(3, C), simplex(6, C)
    settings = {"alpha": 1.0, "temperature": 0.5, "tolerance": 1e-11}
    once = tilt(score_BN, interest_BC, category_NC, **settings)
    split_BN = torch.cat([score_BN - 0.5 * math.log(3)] * 3, dim=1)
    thrice = tilt(split_BN, interest_BC, torch.cat([category_NC] * 3), **settings)
    torch.testing.assert_close(once.multiplier_BC, thrice.multiplier_BC, rtol=1e-8, atol=0)


def test_float32_agrees_with_float64(problem):
    wide = tilt(*problem, alpha=1.0, temperature=0.2)
    narrow = tilt(*(x.float() for x in problem), alpha=1.0, temperature=0.2)
    assert narrow.score_BN.dtype == narrow.multiplier_BC.dtype == torch.float32
    torch.testing.assert_close(narrow.score_BN.double(), wide.score_BN, rtol=0, atol=1e-4)


@pytest.fixture
def exclude_BT():
    """Padded with -1; user 2 loses all items that have category 3."""
    table = torch.full((B, N), -1)
    table[0, :3] = torch.tensor([4, 9, 17])
    table[1, 0] = 0
    return table


def test_excluded_items_are_as_good_as_absent(problem, exclude_BT):
    score_BN, interest_BC, category_NC = problem
    left = [3, 7, 11, 15, 16, 17, 18, 19]  # what has category 3, and one item more
    exclude_BT[2, : len(left)] = torch.tensor(left)
    settings = {"alpha": 1.0, "temperature": 0.3, "tolerance": 1e-11}
    found = tilt(*problem, **settings, exclude_BT=exclude_BT)
    for b in range(B):
        keep = [i for i in range(N) if i not in exclude_BT[b].tolist()]
        alone = tilt(
            score_BN[b : b + 1, keep], interest_BC[b : b + 1], category_NC[keep], **settings
        )
        torch.testing.assert_close(found.score_BN[b, keep], alone.score_BN[0], rtol=0, atol=1e-8)
        gone = [i for i in range(N) if i not in keep]
        assert bool((found.score_BN[b, gone] == -torch.inf).all())
    # The category that user 2 cannot get has no say, and the others are not rescaled.
    assert interest_BC[2, 3] > 0 and found.multiplier_BC[2, 3] == 0
    law_C = (found.score_BN[2] / 0.3).softmax(0) @ category_NC
    torch.testing.assert_close(found.multiplier_BC[2, :3] * law_C[:3], interest_BC[2, :3])
    # A score of -inf excludes as well.
    marked_BN = score_BN.masked_fill(found.score_BN == -torch.inf, -torch.inf)
    again = tilt(marked_BN, interest_BC, category_NC, **settings)
    assert torch.equal(again.score_BN, found.score_BN)


def test_top_is_the_list(problem, exclude_BT):
    exclude_BT[3] = torch.arange(N)
    exclude_BT[3, [5, 8]] = -1
    found = tilt(*problem, alpha=1.0, temperature=0.3, exclude_BT=exclude_BT)
    top_BK = found.top(4)
    assert set(top_BK[3, :2].tolist()) == {5, 8} and top_BK[3, 2:].tolist() == [-1, -1]
    for b in (0, 1, 2):
        order = sorted(range(N), key=lambda i, b=b: -found.score_BN[b, i].item())
        assert top_BK[b].tolist() == order[:4]
    with pytest.raises(ValueError, match="k=0"):
        found.top(0)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"alpha": -1.0}, r"alpha=-1\.0"),
        ({"alpha": math.inf}, "alpha=inf"),
        ({"temperature": 0.0}, r"temperature=0\.0"),
        ({"temperature": torch.ones(B + 1)}, f"temperature=.*one for each of {B} rows"),
        ({"temperature": torch.zeros(B)}, "temperature=.*positive"),
        ({"tolerance": 0.0}, r"tolerance=0\.0"),
        ({"interest_BC": torch.ones(B + 1, C)}, rf"interest_BC of shape .*: expected {B} rows"),
        ({"interest_BC": torch.ones(B, C + 1)}, f"interest_BC has {C + 1} categories"),
        ({"category_NC": torch.ones(N - 1, C)}, f"category_NC of shape .*: expected {N} rows"),
        ({"category_NC": -torch.ones(N, C)}, r"category_NC holds -1\.0"),
        ({"interest_BC": torch.full((B, C), math.nan)}, "interest_BC holds nan"),
        ({"score_BN": torch.full((B, N), math.nan)}, "score_BN holds nan or inf"),
        ({"score_BN": torch.full((B, N), math.inf)}, "score_BN holds nan or inf"),
        ({"exclude_BT": torch.arange(N).expand(B, N)}, "exclude_BT leaves a user no item"),
    ],
)
def test_bad_arguments_are_named(problem, change, message):
    names = dict(zip(("score_BN", "interest_BC", "category_NC"), problem, strict=True))
    with pytest.raises(ValueError, match=message):
        tilt(**{**names, "alpha": 1.0, "temperature": 0.5, **change})


# ---- the layer ----------------------------------------------------------------------------------

TIGHT = {"alpha": 0.7, "tolerance": 1e-12}


@pytest.fixture
def vectors():
    torch.manual_seed(9)
    return torch.randn(B, D).double().requires_grad_(), torch.randn(N, D).double().requires_grad_()


def statistics(law, category_NC):
    """A bit of everything that an objective may ask of a law."""
    item_B = torch.arange(B) + 5
    return law.mean(category_NC), law.entropy(), law.log_prob(item_B)


@pytest.mark.parametrize("excluding", [False, True])
def test_the_layer_is_the_tilt(problem, vectors, exclude_BT, excluding):
    score_BN, interest_BC, category_NC = problem
    settings = {"temperature": torch.linspace(0.2, 2.0, B).double()}
    if excluding:
        settings["exclude_BT"] = exclude_BT
    query_BD, item_ND = (x.detach() for x in vectors)
    for logits_BN, law in (
        (score_BN, ItemDistribution.from_logits(score_BN, **settings)),
        (query_BD @ item_ND.T, ItemDistribution.from_embeddings(query_BD, item_ND, **settings)),
    ):
        found = tilt(logits_BN, interest_BC, category_NC, **settings, **TIGHT)
        expected_BN = (found.score_BN / settings["temperature"][:, None]).softmax(1)
        layer = tilted(law, interest_BC, category_NC, **TIGHT)
        every_BN = torch.arange(N).expand(B, N)
        torch.testing.assert_close(layer.log_prob(every_BN).exp(), expected_BN, rtol=0, atol=1e-9)
        assert layer.complete and layer.num_items == N


def test_the_layer_of_embeddings_holds_no_scores(vectors, problem):
    law = ItemDistribution.from_embeddings(*vectors)
    layer = tilted(law, *problem[1:], **TIGHT)
    assert layer._logits_BN is None and layer._query_BD.shape == (B, D + C)


@pytest.mark.parametrize("excluding", [False, True])
def test_gradients_in_the_scores(problem, exclude_BT, excluding):
    score_BN, interest_BC, category_NC = problem

    def function(score_BN, temperature_B):
        law = ItemDistribution.from_logits(
            score_BN, temperature=temperature_B, exclude_BT=exclude_BT if excluding else None
        )
        return statistics(tilted(law, interest_BC, category_NC, **TIGHT), category_NC)

    temperature_B = torch.linspace(0.4, 2.0, B).double().requires_grad_()
    assert torch.autograd.gradcheck(function, (score_BN.requires_grad_(), temperature_B))


def test_gradients_in_the_embeddings_and_in_the_interests(problem, vectors, exclude_BT):
    _, interest_BC, category_NC = problem

    def function(query_BD, item_ND, interest_XC):
        interest = torch.cat([interest_BC[:2], interest_XC])  # a zero must stay a zero
        law = ItemDistribution.from_embeddings(
            query_BD, item_ND, temperature=0.5, exclude_BT=exclude_BT
        )
        return statistics(tilted(law, interest, category_NC, **TIGHT), category_NC)

    inputs = (*vectors, interest_BC[2:].clone().requires_grad_())
    assert torch.autograd.gradcheck(function, inputs)


def test_the_gradient_of_the_best_value_is_the_law_itself(problem):
    """Envelope theorem: d max / ds = Q. It needs no derivative of the multipliers, so it is
    another route to the layer's law and gradient at once."""
    score_BN, interest_BC, category_NC = problem
    score_BN.requires_grad_()
    law = ItemDistribution.from_logits(score_BN, temperature=0.6)
    layer = tilted(law, interest_BC, category_NC, **TIGHT)
    law_BN = layer.log_prob(torch.arange(N).expand(B, N)).exp()
    best_B = (law_BN * score_BN).sum(1) + 0.6 * entropy(layer)
    best_B = best_B - TIGHT["alpha"] * category_kl(layer, interest_BC, category_NC)
    (gradient_BN,) = torch.autograd.grad(best_B.sum(), score_BN)
    torch.testing.assert_close(gradient_BN, law_BN.detach(), rtol=0, atol=1e-9)


def test_the_layer_learns_relevance_and_stays_calibrated(vectors, problem):
    """Softmax loss alone, through the layer: it falls, and the divergence does not rise with it."""
    _, interest_BC, category_NC = problem
    parameters = [x.detach().float().requires_grad_() for x in vectors]
    interest_BC, category_NC = interest_BC.float(), category_NC.float()
    optimizer = torch.optim.Adam(parameters, lr=0.1)
    target_B = torch.tensor([0, 3, 1, 2, 0, 1])
    losses, divergences = [], []
    for _ in range(40):
        law = tilted(
            ItemDistribution.from_embeddings(*parameters), interest_BC, category_NC, alpha=20.0
        )
        loss = -law.log_prob(target_B).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        divergences.append(category_kl(law, interest_BC, category_NC).mean().item())
    assert losses[-1] < losses[0] - 1
    plain = ItemDistribution.from_embeddings(*parameters)
    assert max(divergences) < 0.05
    assert category_kl(plain, interest_BC, category_NC).mean().item() > 0.5


def test_alpha_zero_leaves_the_law_as_it_is(vectors, problem):
    law = ItemDistribution.from_embeddings(*vectors, temperature=0.5)
    layer = tilted(law, *problem[1:], alpha=0.0)
    torch.testing.assert_close(layer.entropy(), law.entropy(), rtol=0, atol=1e-12)


def test_the_layer_refuses_what_it_cannot_mean(problem):
    score_BN, interest_BC, category_NC = problem
    sample = ItemDistribution.from_logits(score_BN, complete=False)
    with pytest.raises(ValueError, match="sampled candidates"):
        tilted(sample, interest_BC, category_NC, alpha=1.0)
    law = ItemDistribution.from_logits(score_BN)
    with pytest.raises(ValueError, match=r"alpha=-1\.0"):
        tilted(law, interest_BC, category_NC, alpha=-1.0)
    with pytest.raises(ValueError, match="interest_BC of shape"):
        tilted(law, interest_BC[:-1], category_NC, alpha=1.0)
