"""The gradients three ways: SymPy (general symbols), autograd of the library, differences."""

import numpy as np
import pytest
import sympy as sp
import torch

from inforec import losses, regularizers
from inforec import symbolic as sym
from inforec.distribution import ItemDistribution

SIZES = [3, 4, 5]
TAU = sp.Symbol("tau", positive=True)
NUM_CATEGORIES = 3


def closed_forms(n):
    """(name, expression, its gradient as the book states it), all with general symbols."""
    score = sym.symbols("s", n)
    interest = sym.law_symbols("p", NUM_CATEGORIES)  # over categories
    target = sym.law_symbols("P", n)  # over items
    weight = sym.weight_symbols("a", n, NUM_CATEGORIES)  # rows need not sum to 1
    pi = sym.softmax(score, TAU)
    q = sym.category_law(pi, weight)
    entropy = sym.entropy(pi)
    need = [sum(weight[i, c] * interest[c] / q[c] for c in range(NUM_CATEGORIES)) for i in range(n)]
    law_score = sum(a * s for a, s in zip(pi, score, strict=True))
    return score, [
        (
            "softmax loss",
            sym.softmax_loss(score, 1, TAU),
            [(pi[i] - int(i == 1)) / TAU for i in range(n)],
        ),
        (
            "item KL",
            sym.item_kl(score, target, TAU),
            [(pi[i] - target[i]) / TAU for i in range(n)],
        ),
        (
            "category KL",
            sym.category_kl(score, interest, weight, TAU),
            [pi[i] * (1 - need[i]) / TAU for i in range(n)],
        ),
        ("entropy", entropy, [-a * (sp.log(a) + entropy) / TAU for a in pi]),
        (
            "mean score",
            law_score,
            [a * (1 + (s - law_score) / TAU) for a, s in zip(pi, score, strict=True)],
        ),
    ]


@pytest.mark.parametrize("n", SIZES)
def test_gradients_equal_their_closed_forms(n):
    score, forms = closed_forms(n)
    for name, expression, closed in forms:
        for i, (left, right) in enumerate(
            zip(sym.gradient(expression, score), closed, strict=True)
        ):
            assert sym.is_zero(left - right, score, TAU), (name, i)
            assert not sym.is_zero(left + right, score, TAU), (
                f"{name} {i}: the check passes anything"
            )


@pytest.mark.parametrize("n", SIZES)
def test_gradients_in_the_scores_sum_to_zero(n):
    score, forms = closed_forms(n)
    for name, expression, _ in forms[:4]:
        assert sym.is_zero(sum(sym.gradient(expression, score)), score, TAU), name


def test_hessians_equal_their_closed_forms():
    score = sym.symbols("s", 3)
    interest, weight = sym.law_symbols("p", 2), sym.weight_symbols("a", 3, 2)
    forms = [
        (sym.softmax_loss(score, 1, TAU), sym.covariance(sym.softmax(score, TAU)) / TAU**2),
        (
            sym.category_kl(score, interest, weight, TAU),
            sym.category_kl_hessian(score, interest, weight, TAU),
        ),
        (sym.entropy(sym.softmax(score, TAU)), sym.entropy_hessian(score, TAU)),
    ]
    for number, (expression, closed) in enumerate(forms):
        by_sympy = sym.hessian(expression, score)
        for j in (0, 1):  # all symbols are general: the other entries follow by renaming the items
            gap = by_sympy[0, j] - closed[0, j]
            assert sym.is_zero(gap, score, TAU), (number, j)
            assert not sym.is_zero(gap + 2 * closed[0, j], score, TAU), (number, j)


@pytest.mark.parametrize("n", SIZES)
def test_hessians_equal_autograd_of_the_library(n):
    values, score, cases = library_cases(n, seed=n)
    interest = sym.law_symbols("p", NUM_CATEGORIES)
    weight = sym.weight_symbols("a", n, NUM_CATEGORIES)
    closed_forms = {
        "softmax": sym.covariance(sym.softmax(score, TAU)) / TAU**2,
        "category_kl": sym.category_kl_hessian(score, interest, weight, TAU),
        "entropy": sym.entropy_hessian(score, TAU),
    }
    functions = {name: function for name, _, function in cases}
    for name, closed in closed_forms.items():

        def value(logits_N, function=functions[name]):
            return function(logits_N).sum()

        by_autograd = torch.autograd.functional.hessian(value, torch.tensor(values[score]))
        by_sympy = sym.evaluate(closed, values)
        np.testing.assert_allclose(by_autograd, by_sympy, rtol=0, atol=1e-13, err_msg=name)
        assert np.abs(by_sympy).max() > 1e-2, f"{name}: too small a curvature to tell anything"


@pytest.mark.parametrize("n", SIZES)
def test_identities(n):
    score, _ = closed_forms(n)
    pi = sym.softmax(score, TAU)
    mean = sum(a * s for a, s in zip(pi, score, strict=True))
    variance = sum(a * (s - mean) ** 2 for a, s in zip(pi, score, strict=True))
    target = sym.law_symbols("P", n)
    entropy = sym.entropy(pi)
    # H = lse - E[s] / tau;  dH/dtau = Var(s) / tau^3;  KL = cross-entropy - entropy.
    assert sym.is_zero(entropy - sym.log_sum_exp(score, TAU) + mean / TAU, score, TAU)
    assert sym.is_zero(sp.diff(entropy, TAU) - variance / TAU**3, score, TAU)
    assert not sym.is_zero(sp.diff(entropy, TAU) - variance / TAU**2, score, TAU)
    divergence = sym.item_kl(score, target, TAU)
    assert sym.is_zero(divergence - sym.cross_entropy(target, pi) + sym.entropy(target), score, TAU)


@pytest.mark.parametrize("n", [2, 3])
def test_central_moments_are_derivatives_of_log_sum_exp(n):
    """d^k/dt^k tau lse((s + t v) / tau) = tau^(1 - k) E[(v - E v)^k] for k = 2, 3."""
    score, direction, t = sym.symbols("s", n), sym.symbols("v", n), sp.Symbol("t", real=True)
    moved = [s + t * v for s, v in zip(score, direction, strict=True)]
    free_energy = TAU * sym.log_sum_exp(moved, TAU)
    pi = sym.softmax(score, TAU)
    for order in (2, 3):
        slope = sp.diff(free_energy, t, order).subs(t, 0)
        moment = sym.central_moment(pi, direction, order)
        assert sym.is_zero(slope - moment * TAU ** (1 - order), score, TAU)
        assert not sym.is_zero(slope - moment / TAU**order, score, TAU)
    law, value = np.array([0.2, 0.5, 0.3]), np.array([1.0, -2.0, 0.5])
    spread = value - law @ value
    for order in (1, 2, 3, 4):
        np.testing.assert_allclose(
            float(sym.central_moment(law, value, order)), law @ spread**order, atol=1e-15
        )


def test_bpr_is_the_softmax_loss_over_two_items():
    score = sym.symbols("s", 2)
    assert sym.is_zero(sym.bpr(score, 0, 1) - sym.softmax_loss(score, 0), score)
    sigmoid = 1 / (1 + sp.exp(score[0] - score[1]))
    down, up = sym.gradient(sym.bpr(score, 0, 1), score)
    assert sym.is_zero(up - sigmoid, score) and sym.is_zero(down + sigmoid, score)


@pytest.mark.parametrize("n", SIZES)
def test_given_one_item_taken_every_loss_of_a_row_leaves_the_softmax(n):
    score = sym.symbols("s", n)
    coins = sym.law_of_one(sym.logistic_loss, score)
    errors = sym.law_of_one(lambda s, x: sym.square_loss(s, x) / (2 * TAU), score)
    for left, right in ((coins, sym.softmax(score)), (errors, sym.softmax(score, TAU))):
        for a, b in zip(left, right, strict=True):
            assert sym.is_zero(a - b, score, TAU)


@pytest.mark.parametrize(
    "function, form", [(losses.logistic, sym.logistic_loss), (losses.mse, sym.square_loss)]
)
def test_losses_of_whole_rows_equal_sympy(function, form):
    """Items as the identity: a row's vector is its scores. Two items of four are taken."""
    score, point = sym.symbols("s", 4), np.array([0.3, -1.1, 2.0, 0.7])
    expression = form(score, [1, 3]) / 2
    values = dict(zip(score, point, strict=True))
    score_B4 = torch.tensor(point[None], requires_grad=True)
    eye_44 = torch.eye(4, dtype=torch.float64)
    value = function(score_B4, eye_44, torch.tensor([[3, -1, 1]]))
    assert value.item() == pytest.approx(float(sym.evaluate(expression, values)), rel=1e-12)
    (by_autograd,) = torch.autograd.grad(value, score_B4)
    by_sympy = sym.evaluate(sym.gradient(expression, score), values)
    np.testing.assert_allclose(by_autograd[0], by_sympy, rtol=1e-12)


def test_softmax_loss_is_a_function_of_the_gaps():
    score = sym.symbols("s", 4)
    gap = [s - score[0] for s in score[1:]]
    loss = sym.softmax_loss(score, 0, TAU)
    assert sym.is_zero(sym.softmax_of_gaps(gap, TAU) - loss, score, TAU)
    assert not sym.is_zero(sym.softmax_of_gaps([-d for d in gap], TAU) - loss, score, TAU)
    values = np.array([0.3, -0.4, 1.1, 0.2])
    law = ItemDistribution.from_logits(torch.tensor(values)[None], temperature=0.7)
    np.testing.assert_allclose(
        losses.softmax(law, torch.tensor([0])).item(),
        sym.evaluate(sym.softmax_of_gaps(gap, TAU), {score: values, TAU: 0.7}),
        rtol=1e-12,
    )


def library_cases(n, seed=0):
    """(name, SymPy expression, numbers for its symbols, the library's function of the logits)."""
    random = np.random.default_rng(seed)
    tau = 0.7
    score_N = random.normal(size=n)
    category_NC = random.dirichlet(np.ones(NUM_CATEGORIES), size=n)
    interest_C = random.dirichlet(np.ones(NUM_CATEGORIES))
    target_N = random.dirichlet(np.ones(n))
    score = sym.symbols("s", n)
    weight = sym.weight_symbols("a", n, NUM_CATEGORIES)
    interest, target = sym.law_symbols("p", NUM_CATEGORIES), sym.law_symbols("P", n)
    values = {
        score: score_N,
        weight: category_NC,
        interest: interest_C,
        target: target_N,
        TAU: tau,
    }
    category, p, weights = map(torch.tensor, (category_NC, interest_C[None], target_N[None]))
    every = torch.arange(n)[None]

    def law(logits_N):
        return ItemDistribution.from_logits(logits_N[None], temperature=tau)

    category_law = sym.category_law(sym.softmax(score, TAU), weight)
    return (
        values,
        score,
        [
            (
                "softmax",
                sym.softmax_loss(score, 1, TAU),
                lambda logits_N: losses.softmax(law(logits_N), torch.tensor([1])),
            ),
            (
                "bpr",
                (sym.bpr(score, 1, 0) + sym.bpr(score, 1, 2)) / 2,
                lambda logits_N: losses.bpr(logits_N[1:2], logits_N[[0, 2]][None]),
            ),
            (
                "item_kl",
                sym.item_kl(score, target, TAU),
                lambda logits_N: regularizers.item_kl(law(logits_N), every, weights).sum(),
            ),
            (
                "category_kl",
                sym.category_kl(score, interest, weight, TAU),
                lambda logits_N: regularizers.category_kl(law(logits_N), p, category).sum(),
            ),
            (
                "entropy",
                sym.entropy(sym.softmax(score, TAU)),
                lambda logits_N: regularizers.entropy(law(logits_N)).sum(),
            ),
            (
                "category_entropy",
                sym.entropy(category_law),
                lambda logits_N: regularizers.category_entropy(law(logits_N), category).sum(),
            ),
            (
                "pair_loss",
                sym.pair_loss(score, 1, weight, 0.6, 0.4, TAU),
                lambda logits_N: pair_loss(law(logits_N), 1, category, 0.6, 0.4),
            ),
        ],
    )


def pair_loss(law, item, category_NC, alpha, beta):
    """-log Q_i + alpha (KL(A_i || q) + H(A_i)) - beta H(Q), from the library's terms."""
    own_BC = category_NC[[item]]
    cross_B = regularizers.kl(own_BC, law.mean(category_NC)) - torch.xlogy(own_BC, own_BC).sum(1)
    loss = losses.softmax(law, torch.tensor([item]))
    return loss + alpha * cross_B.sum() - beta * regularizers.entropy(law).sum()


@pytest.mark.parametrize("n", SIZES)
def test_library_equals_sympy_and_differences(n):
    values, score, cases = library_cases(n, seed=n)
    for name, expression, function in cases:
        logits_N = torch.tensor(values[score], requires_grad=True)
        value = function(logits_N)
        (by_autograd,) = torch.autograd.grad(value, logits_N)
        np.testing.assert_allclose(
            value.item(), sym.evaluate(expression, values), rtol=1e-12, err_msg=name
        )
        by_sympy = sym.evaluate(sym.gradient(expression, score), values)
        np.testing.assert_allclose(by_autograd, by_sympy, rtol=0, atol=1e-13, err_msg=name)
        by_difference = sym.central_difference(
            lambda point, f=function: f(torch.tensor(point)).item(), values[score]
        )
        np.testing.assert_allclose(by_difference, by_sympy, rtol=0, atol=1e-9, err_msg=name)
        assert np.abs(by_sympy).max() > 1e-3, f"{name}: too small a gradient to tell anything"


@pytest.mark.parametrize("n", SIZES)
def test_embedding_gradients_follow_by_the_chain_rule(n):
    """The streaming path: d/d query = sum_i (d/d s_i) k_i, with d/d s_i from SymPy."""
    values, score, _ = library_cases(n, seed=n)
    random = np.random.default_rng(n)
    query_BD = torch.tensor(random.normal(size=(1, 4)), requires_grad=True)
    item_ND = torch.tensor(random.normal(size=(n, 4)))
    values[score] = (query_BD @ item_ND.T)[0].detach().numpy()
    weight = sym.weight_symbols("a", n, NUM_CATEGORIES)
    category, interest = torch.tensor(values[weight]), sym.law_symbols("p", NUM_CATEGORIES)
    p_BC = torch.tensor(values[interest])[None]
    law = ItemDistribution.from_embeddings(query_BD, item_ND, temperature=values[TAU])
    loss = (
        losses.softmax(law, torch.tensor([1]))
        + 0.5 * regularizers.category_kl(law, p_BC, category).mean()
        - 0.3 * regularizers.entropy(law).mean()
    )
    (by_autograd,) = torch.autograd.grad(loss, query_BD)
    total = (
        sym.softmax_loss(score, 1, TAU)
        + sp.Rational(1, 2) * sym.category_kl(score, interest, weight, TAU)
        - sp.Rational(3, 10) * sym.entropy(sym.softmax(score, TAU))
    )
    by_sympy = sym.evaluate(sym.gradient(total, score), values) @ item_ND.numpy()
    np.testing.assert_allclose(by_autograd[0], by_sympy, rtol=0, atol=1e-13)


@pytest.mark.parametrize("n", SIZES)
def test_mean_pair_loss_is_the_objective_up_to_the_entropy_of_the_interests(n):
    values, score, _ = library_cases(n, seed=n)
    weight = sym.weight_symbols("a", n, NUM_CATEGORIES)
    alpha, beta, taken = sp.Rational(3, 5), sp.Rational(2, 5), [0, n - 1]
    mean = sum(sym.pair_loss(score, i, weight, alpha, beta, TAU) for i in taken) / len(taken)
    interest = [sum(weight[i, c] for i in taken) / len(taken) for c in range(NUM_CATEGORIES)]
    objective = (
        sum(sym.softmax_loss(score, i, TAU) for i in taken) / len(taken)
        + alpha * sym.category_kl(score, interest, weight, TAU)
        - beta * sym.entropy(sym.softmax(score, TAU))
    )
    constant = alpha * sym.entropy(interest)
    np.testing.assert_allclose(sym.evaluate(mean - objective - constant, values), 0, atol=1e-12)
    assert abs(sym.evaluate(constant, values)) > 0.1


def test_info_nce_is_a_softmax_loss_of_cosines():
    random = np.random.default_rng(5)
    query_BD, key_BD = torch.tensor(random.normal(size=(2, 3, 4)))
    cosine_BB = torch.cosine_similarity(query_BD[:, None], key_BD[None], dim=2)
    score = sym.symbols("s", 3)
    by_sympy = [
        sym.evaluate(sym.softmax_loss(score, b, TAU), {score: cosine_BB[b], TAU: 0.2})
        for b in range(3)
    ]
    np.testing.assert_allclose(
        losses.info_nce(query_BD, key_BD, 0.2).item(), np.mean(by_sympy), rtol=1e-12
    )


# ---- the terms of vectors -----------------------------------------------------------------------


def real_matrix(name, rows, columns):
    return sp.ImmutableMatrix(rows, columns, lambda b, d: sp.Symbol(f"{name}_{b}{d}", real=True))


@pytest.mark.parametrize("two_sided", [False, True], ids=["one side", "two sides"])
def test_info_nce_gradient_is_law_minus_identity(two_sided):
    """d/ds_bc = (pi_bc - 1[b = c]) / (B tau) by row; two-sided, its mean with the columns' law."""
    s = real_matrix("s", 3, 3)
    loss = sym.info_nce(s, TAU, two_sided=two_sided)
    rows = [sym.softmax(s.row(b), TAU) for b in range(3)]
    columns = [sym.softmax(s.col(c), TAU) for c in range(3)]
    for b in range(3):
        for c in range(3):
            law = (rows[b][c] + columns[c][b]) / 2 if two_sided else rows[b][c]
            closed = (law - int(b == c)) / (3 * TAU)
            gap = sp.diff(loss, s[b, c]) - closed
            assert sym.is_zero(gap, list(s), TAU), (b, c)
            assert not sym.is_zero(gap + 2 * closed, list(s), TAU), (b, c)


@pytest.mark.parametrize("divergence", ["kl", "chi2", "js"])
def test_f_divergences_have_their_slope_and_conjugate(divergence):
    """f(1) = 0, f convex, f*(f'(u)) = u f'(u) - f(u), (f*)' inverts f'; the library's."""
    u, t = sp.Symbol("u", positive=True), sp.Symbol("t", real=True)
    f = sym.f_generator(divergence, u)
    slope = sp.diff(f, u)
    assert f.subs(u, 1) == 0
    curvature = sp.simplify(sp.diff(slope, u))
    assert curvature.is_positive
    conjugate = sym.f_conjugate(divergence, slope)
    # Every logarithm is expanded; what is left is a quotient of polynomials in u and logarithms.
    assert sp.simplify(sp.expand_log(sp.simplify(conjugate - u * slope + f), force=True)) == 0
    inverse = sp.diff(sym.f_conjugate(divergence, t), t).subs(t, slope)
    assert sp.simplify(inverse - u) == 0
    similarity, composed = losses._F_GAUSSIAN[divergence]
    for value in (1e-3, 0.4, 1.0, 2.5):
        log_u = torch.tensor(value, dtype=torch.float64).log()
        by_sympy = sym.evaluate([slope, conjugate], {u: value})
        library = [similarity(log_u).item(), composed(log_u).item()]
        np.testing.assert_allclose(library, by_sympy, rtol=1e-12, atol=1e-15)


def test_gaussian_rate_is_the_integral_of_the_log_ratio():
    z, m, v = sp.Symbol("z", real=True), sp.Symbol("m", real=True), sp.Symbol("v", real=True)
    deviation = sp.Symbol("s", positive=True)

    def density(mean, deviation):
        return sp.exp(-((z - mean) ** 2) / (2 * deviation**2)) / sp.sqrt(2 * sp.pi * deviation**2)

    # The logarithm of the ratio of the densities is a polynomial in z.
    log_ratio = z**2 / 2 - (z - m) ** 2 / (2 * deviation**2) - sp.log(deviation)
    ratio = density(m, deviation) / density(0, 1)
    assert sp.simplify(sp.expand_log(sp.log(ratio), force=True) - log_ratio) == 0
    integrand = sp.expand(log_ratio) * density(m, deviation)
    integral = sp.integrate(integrand, (z, -sp.oo, sp.oo))
    rate = sym.gaussian_rate([m], [2 * sp.log(deviation)])
    assert sp.simplify(integral - rate) == 0
    down, up = sym.gradient(sym.gaussian_rate([m], [v]), [m, v])
    assert down == m and sp.simplify(up - (sp.exp(v) - 1) / 2) == 0


def vector_cases():
    """(name, SymPy expression of two matrices, the library's function of the same)."""
    x, y = real_matrix("x", 3, 2), real_matrix("y", 3, 2)
    units = [sp.ImmutableMatrix([sym.unit(m.row(b)) for b in range(3)]) for m in (x, y)]
    cosine = units[0] * units[1].T
    pairs = [(x.row(b), y.row(b)) for b in range(3)]
    return [
        ("info_nce", sym.info_nce(cosine, 0.4), lambda q, k: losses.info_nce(q, k, 0.4)),
        (
            "info_nce, two sides, dot product",
            sym.info_nce(x * y.T, 0.4, two_sided=True),
            lambda q, k: losses.info_nce(q, k, 0.4, cosine=False, two_sided=True),
        ),
        (
            "contrastive_margin",
            sym.contrastive_margin(x, y, 1.7),
            lambda q, k: losses.contrastive_margin(q, k, 1.7),
        ),
        (
            "alignment",
            sum(sym.alignment(*pair) for pair in pairs),
            lambda q, k: regularizers.alignment(q, k).sum(),
        ),
        (
            "uniformity",
            sym.uniformity(x, 3) + sym.uniformity(y),
            lambda q, k: regularizers.uniformity(q, 3.0) + regularizers.uniformity(k),
        ),
        (
            "gaussian_rate",
            sum(sym.gaussian_rate(*pair) for pair in pairs),
            lambda q, k: regularizers.gaussian_rate(q, k).sum(),
        ),
        *(
            (
                f"f_micl, {divergence}",
                sym.f_micl(*units, divergence, 0.9),
                lambda q, k, name=divergence: losses.f_micl(q, k, divergence=name, sigma=0.9),
            )
            for divergence in ("kl", "chi2", "js")
        ),
    ]


def test_terms_of_vectors_equal_sympy_and_differences():
    point = np.random.default_rng(8).normal(size=(2, 3, 2))
    x, y = real_matrix("x", 3, 2), real_matrix("y", 3, 2)
    values = {x: point[0], y: point[1]}
    for name, expression, function in vector_cases():
        inputs = torch.tensor(point, requires_grad=True)
        value = function(*inputs)
        (by_autograd,) = torch.autograd.grad(value, inputs)
        np.testing.assert_allclose(
            value.item(), sym.evaluate(expression, values), rtol=1e-11, err_msg=name
        )
        by_sympy = sym.evaluate(sym.gradient(expression, [*x, *y]), values)
        np.testing.assert_allclose(
            by_autograd.flatten(), by_sympy, rtol=0, atol=1e-12, err_msg=name
        )
        by_difference = sym.central_difference(
            lambda flat, f=function: f(*torch.tensor(flat).view(2, 3, 2)).item(), point.ravel()
        )
        np.testing.assert_allclose(by_difference, by_sympy, rtol=0, atol=1e-8, err_msg=name)
        assert np.abs(by_sympy).max() > 1e-2, f"{name}: too small a gradient to tell anything"


def test_mutual_information_is_a_mean_divergence():
    """Of the rows' laws from their mean, weighed by the rows: in general, and the library's."""
    joint = sym.weight_symbols("w", 2, 3)
    row = [sum(joint.row(x)) for x in range(2)]
    column = [sum(joint.col(y)) for y in range(3)]
    mean = sum(row[x] * sym.kl([a / row[x] for a in joint.row(x)], column) for x in range(2))
    assert sym.is_zero(sym.mutual_information(joint) - mean, ())
    assert not sym.is_zero(sym.mutual_information(joint) - mean / 2, ())
    number_XY = np.random.default_rng(0).dirichlet(np.ones(6)).reshape(2, 3)
    by_sympy = sym.evaluate(sym.mutual_information(joint), {joint: number_XY})
    share_X = torch.tensor(number_XY).sum(1)
    library = share_X @ regularizers.kl(
        torch.tensor(number_XY) / share_X[:, None], torch.tensor(number_XY).sum(0)
    )
    np.testing.assert_allclose(library, by_sympy, rtol=1e-12)
    assert by_sympy > 1e-2


def test_effective_categories_are_one_plus_the_chi2_information():
    law = sym.law_symbols("P", 3)
    share = sym.symbols("a", 3, positive=True)
    weight = sp.ImmutableMatrix(3, 2, lambda i, c: share[i] if c == 0 else 1 - share[i])
    p = sym.category_law(law, weight)
    chi2 = sum(
        law[i] * p[c] * sym.f_generator("chi2", weight[i, c] / p[c])
        for i in range(3)
        for c in range(2)
    )
    assert sp.simplify(sym.effective_categories(law, weight) - 1 - chi2) == 0
    assert sp.simplify(sym.effective_categories(law, weight) - chi2) != 0
    one_hot = sp.ImmutableMatrix([[1, 0], [0, 1], [0, 1]])
    assert sp.simplify(sym.effective_categories(law, one_hot) - 2) == 0


def test_zero_probabilities_add_nothing():
    q = sym.symbols("q", 3, positive=True)
    p = (sp.Rational(1, 4), sp.Rational(3, 4), 0)
    assert sp.simplify(sym.kl(p, q) - sym.cross_entropy(p, q) + sym.entropy(p[:2])) == 0
    numbers = {q: [0.2, 0.3, 0.5]}
    library = regularizers.kl(torch.tensor([[0.25, 0.75, 0.0]]), torch.tensor([[0.2, 0.3, 0.5]]))
    np.testing.assert_allclose(sym.evaluate(sym.kl(p, q), numbers), library[0], rtol=1e-6)


def test_evaluate_keeps_the_shape():
    x, y = sym.symbols("x", 2)
    out = sym.evaluate(sp.Matrix([[x, x + y], [2, x * y]]), {(x, y): [3.0, 4.0]})
    np.testing.assert_array_equal(out, [[3.0, 7.0], [2.0, 12.0]])
    assert sym.evaluate(x, {x: 2}).shape == ()


def test_evaluate_says_what_is_wrong():
    x, y = sym.symbols("x", 2)
    with pytest.raises(ValueError, match=r"no number for \[x_1\]"):
        sym.evaluate(x + y, {x: 1.0})
    with pytest.raises(ValueError, match=r"\(2,\) symbols but \(3,\) numbers"):
        sym.evaluate(x + y, {(x, y): [1.0, 2.0, 3.0]})


def test_is_zero_is_exact():
    score = sym.symbols("s", 3)
    pi = sym.softmax(score)
    assert sym.is_zero(sum(pi) - 1, score)
    assert not sym.is_zero(sum(pi) - 1 - sp.Rational(1, 10**20), score)
    assert not sym.is_zero(pi[0] - pi[1], score)
    assert sym.is_zero(sp.log(pi[0] / pi[1]) - score[0] + score[1], score)
