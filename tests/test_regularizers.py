"""The information-theoretic terms against loops over the definition.

Shape letters: B rows, N items, C categories, T items of a padded table.
"""

import math

import pytest
import torch

from inforec import regularizers
from inforec.distribution import ItemDistribution

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
    ],
    ids=["category_kl", "item_kl", "entropy", "category_entropy"],
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
