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


@pytest.mark.parametrize("temperature", [1.0, 0.1])
@pytest.mark.parametrize("B, D", [(1, 2), (4, 3)])
def test_info_nce_follows_its_formula(B, D, temperature):
    query_BD, key_BD = randn(B, D), randn(B, D)

    def cosine(a, b):
        dot = sum(x * y for x, y in zip(a, b, strict=True))
        return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))

    slow = 0.0
    for b in range(B):
        weight = [
            math.exp(cosine(query_BD[b].tolist(), key_BD[c].tolist()) / temperature)
            for c in range(B)
        ]
        slow -= math.log(weight[b] / sum(weight)) / B
    loss = losses.info_nce(query_BD, key_BD, temperature)
    assert loss.item() == pytest.approx(slow, rel=1e-10, abs=1e-12)


def test_info_nce_known_value_and_gradient():
    # Orthogonal rows that equal their keys: log(e^1 + (B - 1)) - 1.
    loss = losses.info_nce(torch.eye(5), 3 * torch.eye(5), 1.0)
    assert loss.item() == pytest.approx(math.log(math.e + 4) - 1)
    assert torch.autograd.gradcheck(
        lambda q, k: losses.info_nce(q, k, 0.5), (randn(3, 2), randn(3, 2))
    )
