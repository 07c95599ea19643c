"""SymPy forms of the book's laws and losses: one source for the chapters and the tests.

Every function takes SymPy expressions and returns SymPy expressions, in nats, for one user, so that
a formula can be differentiated, compared with its closed form for *general* symbols, and evaluated
at numbers beside the library's tensors.

>>> score = symbols("s", 3)
>>> gradient(softmax_loss(score, 0), score)[1]
exp(s_1)/(exp(s_0) + exp(s_1) + exp(s_2))

Letters: n items, C categories, B rows of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import sympy as sp


def symbols(name: str, n: int, *, positive: bool = False) -> tuple[sp.Symbol, ...]:
    """n real symbols name_0 .. name_{n-1}; positive ones where a logarithm is taken of them."""
    assumption = {"positive": True} if positive else {"real": True}
    return tuple(sp.Symbol(f"{name}_{i}", **assumption) for i in range(n))


def law_symbols(name: str, n: int) -> tuple[sp.Expr, ...]:
    """A general law on n outcomes: n - 1 positive symbols, and 1 minus their sum as the last."""
    free = symbols(name, n - 1, positive=True)
    return (*free, 1 - sum(free))


def weight_symbols(name: str, n: int, num_categories: int) -> sp.ImmutableMatrix:
    """(n, C) matrix of positive symbols: general weights, whose rows need not sum to 1."""
    return sp.ImmutableMatrix(
        n, num_categories, lambda i, c: sp.Symbol(f"{name}_{i}{c}", positive=True)
    )


def log_sum_exp(score: Sequence, temperature=1) -> sp.Expr:
    """log sum_i exp(s_i / temperature)."""
    return sp.log(sum(sp.exp(s / temperature) for s in score))


def softmax(score: Sequence, temperature=1) -> list[sp.Expr]:
    """The law Q_i = exp(s_i / temperature) / sum_j exp(s_j / temperature)."""
    weight = [sp.exp(s / temperature) for s in score]
    return [w / sum(weight) for w in weight]


def entropy(law: Sequence) -> sp.Expr:
    """H(Q) = -sum_i Q_i log Q_i."""
    return -sum(q * sp.log(q) for q in law)


def central_moment(law: Sequence, value: Sequence, order: int) -> sp.Expr:
    """E_Q[(v - E_Q v)^order]; of order 2 it is the variance."""
    mean = sum(q * v for q, v in zip(law, value, strict=True))
    return sum(q * (v - mean) ** order for q, v in zip(law, value, strict=True))


def cross_entropy(p: Sequence, q: Sequence) -> sp.Expr:
    """-sum_i P_i log Q_i; a P_i that is the number 0 adds nothing."""
    return -sum(a * sp.log(b) for a, b in zip(p, q, strict=True) if a != 0)


def kl(p: Sequence, q: Sequence) -> sp.Expr:
    """KL(P || Q) = sum_i P_i log(P_i / Q_i), with 0 log 0 = 0."""
    return sum(a * (sp.log(a) - sp.log(b)) for a, b in zip(p, q, strict=True) if a != 0)


def category_law(law: Sequence, weight: sp.ImmutableMatrix) -> list[sp.Expr]:
    """q_c = sum_i Q_i A_ic: a law over items seen as a law over categories."""
    return [sum(q * weight[i, c] for i, q in enumerate(law)) for c in range(weight.cols)]


def effective_categories(law: Sequence, weight: sp.ImmutableMatrix) -> sp.Expr:
    """C_eff = sum_c (sum_i P_i A_ic^2) / p_c, with p_c = sum_i P_i A_ic."""
    square = weight.applyfunc(lambda a: a**2)
    pairs = zip(category_law(law, square), category_law(law, weight), strict=True)
    return sum(a / p for a, p in pairs)


def mutual_information(joint: sp.ImmutableMatrix) -> sp.Expr:
    """I(X; Y) = sum_xy p(x, y) log(p(x, y) / (p(x) p(y))), of the matrix p(x, y)."""
    rows = [sum(joint.row(x)) for x in range(joint.rows)]
    columns = [sum(joint.col(y)) for y in range(joint.cols)]
    return kl(list(joint), [a * b for a in rows for b in columns])


def softmax_loss(score: Sequence, positive: int, temperature=1) -> sp.Expr:
    """-log Q_positive."""
    return log_sum_exp(score, temperature) - score[positive] / temperature


def item_kl(score: Sequence, p: Sequence, temperature=1) -> sp.Expr:
    """KL(P || Q) over items, Q the softmax of the scores."""
    return kl(p, softmax(score, temperature))


def category_kl(score: Sequence, p: Sequence, weight: sp.ImmutableMatrix, temperature=1) -> sp.Expr:
    """KL(p || q) over categories, q_c = sum_i Q_i A_ic, Q the softmax of the scores."""
    return kl(p, category_law(softmax(score, temperature), weight))


def pair_loss(
    score: Sequence, positive: int, weight: sp.ImmutableMatrix, alpha, beta, temperature=1
) -> sp.Expr:
    """-log Q_i - alpha sum_c A_ic log q_c - beta H(Q): the objective's share of one positive i."""
    law = softmax(score, temperature)
    q = category_law(law, weight)
    category = cross_entropy(weight.row(positive), q)
    return softmax_loss(score, positive, temperature) + alpha * category - beta * entropy(law)


def bpr(score: Sequence, positive: int, negative: int) -> sp.Expr:
    """-log sigmoid(s_positive - s_negative)."""
    return sp.log(1 + sp.exp(score[negative] - score[positive]))


def logistic_loss(score: Sequence, taken: Iterable[int]) -> sp.Expr:
    """sum_i log(1 + exp(s_i)) - sum of the taken s_i: every item a coin with log-odds s_i."""
    return sum(sp.log(1 + sp.exp(s)) for s in score) - sum(score[i] for i in taken)


def square_loss(score: Sequence, taken: Iterable[int]) -> sp.Expr:
    """sum_i (x_i - s_i)^2, x_i = 1 if taken and else 0."""
    taken = set(taken)
    return sum((int(i in taken) - s) ** 2 for i, s in enumerate(score))


def law_of_one(loss: Callable, score: Sequence) -> list[sp.Expr]:
    """The law of the one item taken, given that just one is, where exp(-loss) is a row's chance."""
    first = loss(score, [0])
    weight = [sp.exp(sp.expand(first - loss(score, [i]))) for i in range(len(score))]
    return [w / sum(weight) for w in weight]


def softmax_of_gaps(gap: Sequence, temperature=1) -> sp.Expr:
    """log(1 + sum_j exp(d_j / temperature)), d_j = s_j - s_positive."""
    return sp.log(1 + sum(sp.exp(sp.expand(d / temperature)) for d in gap))


def info_nce(similarity: sp.ImmutableMatrix, temperature=1, *, two_sided=False) -> sp.Expr:
    """InfoNCE of a (B, B) matrix of similarities: the mean over rows of -log softmax_b.

    Two-sided, its mean with the same of the transposed matrix.
    """
    if two_sided:
        return (info_nce(similarity, temperature) + info_nce(similarity.T, temperature)) / 2
    rows = range(similarity.rows)
    return sum(softmax_loss(list(similarity.row(b)), b, temperature) for b in rows) / len(rows)


def f_generator(divergence: str, u) -> sp.Expr:
    """The convex f with f(1) = 0 whose f-divergence is "kl", Pearson's "chi2", or "js" twice."""
    return {
        "kl": u * sp.log(u),
        "chi2": (u - 1) ** 2,
        "js": u * sp.log(u) - (u + 1) * sp.log((u + 1) / 2),
    }[divergence]


def f_conjugate(divergence: str, t) -> sp.Expr:
    """f*(t) = sup_u (t u - f(u)), the convex conjugate of :func:`f_generator`."""
    return {
        "kl": sp.exp(t - 1),
        "chi2": t + t**2 / 4,
        "js": -sp.log(2 - sp.exp(t)),
    }[divergence]


def f_micl(query: sp.ImmutableMatrix, key: sp.ImmutableMatrix, divergence: str, sigma) -> sp.Expr:
    """-E_pos[f'(u)] + E_neg[f*(f'(u))] of the rows of two matrices, u the Gaussian kernel.

    The rows are taken as they are: unit vectors, where the paper's sphere is meant.
    """
    size = query.rows
    u = sp.Symbol("u", positive=True)
    slope = sp.diff(f_generator(divergence, u), u)

    def similarity(b, c):
        kernel = sp.exp(-squared_distance(query.row(b), key.row(c)) / (2 * sigma**2))
        return slope.subs(u, kernel)

    pairs = [(b, c) for b in range(size) for c in range(size) if b != c]
    negative = sum(f_conjugate(divergence, similarity(b, c)) for b, c in pairs) / len(pairs)
    return negative - sum(similarity(b, b) for b in range(size)) / size


def contrastive_margin(query: sp.ImmutableMatrix, key: sp.ImmutableMatrix, margin) -> sp.Expr:
    """mean_b d_bb^2 + mean_(b != c) max(0, margin - d_bc)^2, d the distance of two rows."""
    size = query.rows
    square = [
        [squared_distance(query.row(b), key.row(c)) for c in range(size)] for b in range(size)
    ]
    pairs = [(b, c) for b in range(size) for c in range(size) if b != c]
    negative = sum(sp.Max(0, margin - sp.sqrt(square[b][c])) ** 2 for b, c in pairs) / len(pairs)
    return sum(square[b][b] for b in range(size)) / size + negative


def squared_distance(x: Sequence, y: Sequence) -> sp.Expr:
    """The squared Euclidean distance of x and y."""
    return sum((a - b) ** 2 for a, b in zip(x, y, strict=True))


def unit(x: Sequence) -> list[sp.Expr]:
    """x divided by its length."""
    norm = sp.sqrt(sum(a**2 for a in x))
    return [a / norm for a in x]


def alignment(x: Sequence, y: Sequence) -> sp.Expr:
    """The squared distance of the two unit vectors."""
    return squared_distance(unit(x), unit(y))


def uniformity(x: sp.ImmutableMatrix, t=2) -> sp.Expr:
    """log of the mean over pairs of rows of exp(-t times their alignment)."""
    pairs = [(b, c) for b in range(x.rows) for c in range(b)]
    return sp.log(sum(sp.exp(-t * alignment(x.row(b), x.row(c))) for b, c in pairs) / len(pairs))


def gaussian_rate(mean: Sequence, log_variance: Sequence) -> sp.Expr:
    """KL(N(m, diag e^v) || N(0, I)) = sum_d (m_d^2 + e^(v_d) - 1 - v_d) / 2."""
    pairs = zip(mean, log_variance, strict=True)
    return sum((m**2 + sp.exp(v) - 1 - v) / 2 for m, v in pairs)


def gradient(expression: sp.Expr, score: Sequence[sp.Symbol]) -> list[sp.Expr]:
    """The partial derivative of the expression in each score."""
    return [sp.diff(expression, s) for s in score]


def hessian(expression: sp.Expr, score: Sequence[sp.Symbol]) -> sp.ImmutableMatrix:
    """The (n, n) matrix of second partial derivatives of the expression in the scores."""
    return sp.ImmutableMatrix([gradient(slope, score) for slope in gradient(expression, score)])


def covariance(law: Sequence) -> sp.ImmutableMatrix:
    """Cov_Q = diag(Q) - Q Q^T, so that v^T Cov_Q v is the variance of v under the law."""
    return sp.ImmutableMatrix(
        len(law), len(law), lambda i, j: (law[i] if i == j else 0) - law[i] * law[j]
    )


def category_kl_hessian(
    score: Sequence, p: Sequence, weight: sp.ImmutableMatrix, temperature=1
) -> sp.ImmutableMatrix:
    """(Cov_Q - sum_c p_c Cov_c) / temperature^2, Cov_c of the law Q_i A_ic / q_c in a category."""
    law = softmax(score, temperature)
    inside = sp.zeros(len(law), len(law))
    for c, (wanted, served) in enumerate(zip(p, category_law(law, weight), strict=True)):
        inside += wanted * covariance([q * weight[i, c] / served for i, q in enumerate(law)])
    return sp.ImmutableMatrix(covariance(law) - inside) / temperature**2


def entropy_hessian(score: Sequence, temperature=1) -> sp.ImmutableMatrix:
    """(Q_i Q_j (1 + l_i + l_j) - [i = j] Q_i (1 + l_i)) / temperature^2, l_i = log Q_i + H(Q)."""
    law = softmax(score, temperature)
    excess = [sp.log(q) + entropy(law) for q in law]

    def entry(i, j):
        diagonal = law[i] * (1 + excess[i]) if i == j else 0
        return (law[i] * law[j] * (1 + excess[i] + excess[j]) - diagonal) / temperature**2

    return sp.ImmutableMatrix(len(law), len(law), entry)


def is_zero(expression: sp.Expr, score: Sequence[sp.Symbol], temperature=1) -> bool:
    """Whether an expression in softmaxes of the scores is 0 for all values of its symbols.

    s_i = temperature log x_i turns every softmax into a quotient of polynomials in the x_i. Each
    logarithm that is left, of an x_i or of a polynomial, becomes an unknown of its own. The
    expression is 0 if the numerator of the quotient is the zero polynomial, which SymPy decides
    exactly. (Where two of the logarithms depend on each other, such as log(x + y) and
    log(2 x + 2 y), the answer may be False for an expression that is 0; it is never wrongly True.)
    """
    x = symbols("x", len(score), positive=True)
    change = {s: temperature * sp.log(a) for s, a in zip(score, x, strict=True)}
    rational = sp.expand_log(sp.sympify(expression).subs(change), force=True)
    # Quotients inside a logarithm become differences of logarithms of polynomials.
    rational = rational.replace(sp.log, lambda a: sp.expand_log(sp.log(sp.together(a)), force=True))
    logs = {log: sp.Dummy(f"log_{k}") for k, log in enumerate(rational.atoms(sp.log))}
    numerator, _ = sp.fraction(sp.together(rational.xreplace(logs)))
    return sp.expand(numerator) == 0


def evaluate(expression, values: Mapping) -> np.ndarray:
    """Numbers in place of symbols: a float64 array of the shape of ``expression``.

    Args:
        expression: a SymPy expression, or a sequence or matrix of them.
        values: from a symbol, or a sequence or matrix of symbols, to a number or an array of the
            same shape (anything that numpy reads, such as a tensor). Entries that are not symbols,
            such as the last one of :func:`law_symbols`, are skipped: they follow from the others.

    Raises:
        ValueError: if shapes differ, or a symbol is left without a value.
    """
    known = {}
    for names, numbers in values.items():
        names = np.array(names, dtype=object)
        numbers = np.asarray(numbers, dtype=float)
        if names.shape != numbers.shape:
            raise ValueError(f"values: {names.shape} symbols but {numbers.shape} numbers")
        known |= {
            name: number
            for name, number in zip(names.flat, numbers.flat, strict=True)
            if isinstance(name, sp.Symbol)
        }
    flat = np.array(expression, dtype=object)
    missing = sorted(
        set().union(*(sp.sympify(e).free_symbols for e in flat.flat)) - known.keys(), key=str
    )
    if missing:
        raise ValueError(f"values: no number for {missing}, which the expression holds")
    function = sp.lambdify(list(known), list(flat.flat), modules="numpy", cse=True)
    return np.array(function(*known.values()), dtype=float).reshape(flat.shape)


def central_difference(
    function: Callable[[np.ndarray], float], point, step: float = 1e-5
) -> np.ndarray:
    """The gradient of a function by (f(x + h e_i) - f(x - h e_i)) / 2h; error of order h^2."""
    point = np.asarray(point, dtype=float)
    basis = step * np.eye(len(point))
    return np.array(
        [(function(point + h) - function(point - h)) / (2 * step) for h in basis], dtype=float
    )
