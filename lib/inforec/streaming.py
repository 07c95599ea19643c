"""Exact statistics of Q_u over the whole catalogue, without ever holding a (users x items) matrix.

For a row with scores s_i = q . k_i the law is Q_i = exp(s_i - lse), lse = log sum_i exp(s_i). The
items are read in blocks. Each block updates a running maximum m and the sums

    l = sum_i e^(s_i - m),    t = sum_i e^(s_i - m) (s_i - m),    o = sum_i e^(s_i - m) v_i,

which are rescaled whenever m grows. At the end, in nats,

    lse = m + log l,    H(Q) = log l - t / l,    E_Q[v] = o / l.

H is taken from shifted scores, so it keeps its digits however large the scores are. The backward
pass reads the items once more: with P_i = exp(s_i - lse) and incoming gradients g,

    dL/ds_i = P_i (g_lse - g_H (log P_i + H) + g_o . (v_i - E_Q[v])).

Where all the scores fit into one block they are kept instead.

The running maximum and sum are those of Milakov and Gimelshein (2018, arXiv:1805.02867).

Shape letters: B rows, N items, D embedding size, C value columns (categories), T excluded items a
row, S items of one block, R parts of the catalogue.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.amp import custom_bwd, custom_fwd
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

BLOCK_ELEMENTS = 2**20  # scores held at a time; 4 MB in float32 stays near the processor's cache


def catalogue_pass(
    query_BD: Tensor,
    item_ND: Tensor,
    value_NC: Tensor | None = None,
    exclude_BT: Tensor | None = None,
    *,
    block_elements: int = BLOCK_ELEMENTS,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Log-sum-exp, entropy and mean value of softmax(query . items), in one blocked pass.

    Args:
        query_BD: (B, D) row vectors, already divided by the temperature.
        item_ND: (N, D) item vectors.
        value_NC: (N, C) values whose mean is wanted, or None.
        exclude_BT: (B, T) int64 items that get probability 0, padded with -1, or None.
        block_elements: upper bound on the scores held at a time (at least one item a row).

    Returns:
        lse_B (B,), entropy_B (B,) in nats, mean_BC (B, C) or None. All are exact and
        differentiable once in ``query_BD``, ``item_ND`` and ``value_NC``.
    """
    lse_B, entropy_B, mean_BC = _CataloguePass.apply(
        query_BD, item_ND, value_NC, exclude_BT, block_elements
    )
    return lse_B, entropy_B, mean_BC


def merged_shards(
    lse_RB: Tensor, entropy_RB: Tensor, mean_RBC: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """What :func:`catalogue_pass` says of the whole catalogue, from what it says of R parts of it.

    With w_r = exp(lse_r - lse), the mass of part r: lse = log sum_r exp(lse_r),
    H = sum_r w_r (H_r - log w_r), E[v] = sum_r w_r E_r[v]. So processes that hold a part of the
    item table each need to exchange C + 2 numbers a row, and no scores.

    Args:
        lse_RB: (R, B) log-sum-exp of each part.
        entropy_RB: (R, B) entropy of the law within each part, nats.
        mean_RBC: (R, B, C) mean values within each part, or None.

    Returns:
        lse_B, entropy_B and mean_BC (or None), differentiable in all of them.
    """
    lse_B = lse_RB.logsumexp(0)
    log_mass_RB = lse_RB - lse_B
    mass_RB = log_mass_RB.exp()
    entropy_B = (mass_RB * (entropy_RB - log_mass_RB)).sum(0)
    return lse_B, entropy_B, None if mean_RBC is None else (mass_RB[..., None] * mean_RBC).sum(0)


def dense_pass(
    query_BD: Tensor,
    item_ND: Tensor,
    value_NC: Tensor | None = None,
    exclude_BT: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The same as :func:`catalogue_pass` from the whole (B, N) matrix: the reference in tests."""
    score_BN = query_BD @ item_ND.T
    excluded_BN = excluded_mask(exclude_BT, score_BN)
    if excluded_BN is not None:
        score_BN = score_BN.masked_fill(excluded_BN, -torch.inf)
    lse_B = score_BN.logsumexp(1)
    log_prob_BN = score_BN - lse_B[:, None]
    prob_BN = log_prob_BN.exp()
    if excluded_BN is not None:
        log_prob_BN = log_prob_BN.masked_fill(excluded_BN, 0.0)
    entropy_B = -(prob_BN * log_prob_BN).sum(1)
    return lse_B, entropy_B, None if value_NC is None else prob_BN @ value_NC


def softplus_sum(
    query_BD: Tensor, item_ND: Tensor, *, block_elements: int = BLOCK_ELEMENTS
) -> Tensor:
    """(B,) sum_i log(1 + exp(query . item_i)) over the catalogue, the items read in blocks.

    The backward pass makes each block's scores once more, so that no (B, N) matrix is ever held;
    where all the scores fit into one block they are kept.

    Args:
        query_BD: (B, D) row vectors.
        item_ND: (N, D) item vectors.
        block_elements: upper bound on the scores held at a time (at least one item a row).
    """

    def block_sum(query_BD, item_SD):
        return F.softplus(query_BD @ item_SD.T).sum(1, dtype=query_BD.dtype)

    step = max(1, block_elements // max(1, len(query_BD)))
    if len(item_ND) <= step:
        return block_sum(query_BD, item_ND)
    return sum(
        checkpoint(block_sum, query_BD, item_SD, use_reentrant=False, preserve_rng_state=False)
        for item_SD in item_ND.split(step)
    )


def excluded_mask(exclude_BT: Tensor | None, like_BN: Tensor) -> Tensor | None:
    """(B, N) bool: True where the item is excluded for the row; None if nothing is."""
    if exclude_BT is None:
        return None
    mask_BN = torch.zeros(like_BN.shape, dtype=torch.bool, device=like_BN.device)
    row, place = (exclude_BT >= 0).nonzero(as_tuple=True)
    mask_BN[row, exclude_BT[row, place]] = True
    return mask_BN


class _CataloguePass(torch.autograd.Function):
    @staticmethod
    @custom_fwd(device_type="cuda", cast_inputs=torch.float32)  # half precision loses the entropy
    def forward(ctx, query_BD, item_ND, value_NC, exclude_BT, block_elements):
        ctx.set_materialize_grads(False)
        num_rows, num_items = len(query_BD), len(item_ND)
        step = max(1, block_elements // max(1, num_rows))
        max_B = query_BD.new_full((num_rows,), torch.finfo(query_BD.dtype).min)
        sum_B = query_BD.new_zeros(num_rows)
        shifted_B = query_BD.new_zeros(num_rows)
        mean_BC = None if value_NC is None else query_BD.new_zeros(num_rows, value_NC.shape[1])

        for start in range(0, num_items, step):
            score_BS, hidden = _block_scores(query_BD, item_ND, exclude_BT, start, step)
            new_max_B = torch.maximum(max_B, score_BS.amax(1))
            drop_B = max_B - new_max_B
            scale_B = drop_B.exp()
            score_BS -= new_max_B[:, None]
            weight_BS = score_BS.exp()
            if hidden is not None:
                score_BS[hidden] = 0.0  # 0 x (-inf) must count as 0 below
            shifted_B = scale_B * (shifted_B + drop_B * sum_B) + _row_dot(weight_BS, score_BS)
            sum_B = scale_B * sum_B + weight_BS.sum(1)
            if mean_BC is not None:
                mean_BC = scale_B[:, None] * mean_BC + weight_BS @ value_NC[start : start + step]
            max_B = new_max_B

        # A sum that is not a number goes on: the loss reports it with the names of its terms.
        assert not bool((sum_B == 0).any()), "a row has every item excluded"
        lse_B = max_B + sum_B.log()
        entropy_B = sum_B.log() - shifted_B / sum_B
        if mean_BC is not None:
            mean_BC = mean_BC / sum_B[:, None]
        ctx.save_for_backward(query_BD, item_ND, value_NC, exclude_BT, lse_B, entropy_B, mean_BC)
        ctx.step = step
        # Where one block holds all the scores, the backward pass need not make them again.
        ctx.only_block = None
        if num_items <= step and any(ctx.needs_input_grad[:3]):
            score_BS -= sum_B.log()[:, None]
            weight_BS /= sum_B[:, None]
            ctx.only_block = score_BS, weight_BS, hidden
        return lse_B, entropy_B, mean_BC

    @staticmethod
    @once_differentiable
    @custom_bwd(device_type="cuda")
    def backward(ctx, g_lse_B, g_entropy_B, g_mean_BC):
        query_BD, item_ND, value_NC, exclude_BT, lse_B, entropy_B, mean_BC = ctx.saved_tensors
        need_query, need_item, need_value = ctx.needs_input_grad[:3]
        constant_B = torch.zeros_like(lse_B)
        if g_lse_B is not None:
            constant_B += g_lse_B
        if g_entropy_B is not None:
            constant_B -= g_entropy_B * entropy_B
        if g_mean_BC is not None:
            constant_B -= _row_dot(g_mean_BC, mean_BC)

        query_grad_BD = torch.zeros_like(query_BD) if need_query else None
        item_grad_ND = torch.empty_like(item_ND) if need_item else None
        value_grad_NC = None
        if need_value:
            value_grad_NC = torch.zeros_like(value_NC)
        for start in range(0, len(item_ND), ctx.step):
            block = slice(start, start + ctx.step)
            if ctx.only_block is None:
                log_prob_BS, hidden = _block_scores(query_BD, item_ND, exclude_BT, start, ctx.step)
                log_prob_BS -= lse_B[:, None]
                prob_BS = log_prob_BS.exp()
            else:
                log_prob_BS, prob_BS, hidden = ctx.only_block
            if need_value and g_mean_BC is not None:
                value_grad_NC[block] = prob_BS.T @ g_mean_BC
            # What was kept must survive a second backward pass: it is only read here.
            if g_entropy_B is None:
                factor_BS = constant_B[:, None].expand_as(prob_BS).clone()
            else:
                if hidden is not None:
                    log_prob_BS = log_prob_BS.index_put(hidden, log_prob_BS.new_zeros(()))
                factor_BS = (log_prob_BS * -g_entropy_B[:, None]).add_(constant_B[:, None])
            if g_mean_BC is not None:
                factor_BS.addmm_(g_mean_BC, value_NC[block].T)
            score_grad_BS = factor_BS.mul_(prob_BS)
            if need_query:
                query_grad_BD.addmm_(score_grad_BS, item_ND[block])
            if need_item:
                torch.mm(score_grad_BS.T, query_BD, out=item_grad_ND[block])
        return query_grad_BD, item_grad_ND, value_grad_NC, None, None


def _block_scores(query_BD, item_ND, exclude_BT, start, step):
    """Scores of one block of items, -inf where excluded, and the indices of those places."""
    score_BS = query_BD @ item_ND[start : start + step].T
    if exclude_BT is None:
        return score_BS, None
    row, place = ((exclude_BT >= start) & (exclude_BT < start + step)).nonzero(as_tuple=True)
    hidden = (row, exclude_BT[row, place] - start)
    score_BS[hidden] = -torch.inf
    return score_BS, hidden


def _row_dot(left_BX: Tensor, right_BX: Tensor) -> Tensor:
    """(B,): the dot product of each pair of rows, with no (B, X) temporary."""
    return torch.linalg.vecdot(left_BX, right_BX)
