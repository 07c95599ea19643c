"""The user-item graph: its normalised adjacency, random walks, and steps of propagation.

Shape letters: U users, N items, V = U + N nodes (users first), E interactions, D embedding size,
W nodes of one walk.
"""

from __future__ import annotations

import warnings
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from inforec.types import Interactions

BLOCK = 2**17  # interactions whose two (D,) ends are gathered at a time


def normalised_adjacency(train: Interactions) -> Tensor:
    """D^(-1/2) A D^(-1/2) of the bipartite graph, a (V, V) sparse CSR float32 tensor.

    A joins user u and item i where u took i in training; D holds the node degrees. A node without
    an edge keeps an empty row. He et al. (2020), LightGCN, section 3.1.
    """
    user, item = train.user, train.item + train.num_users
    weight = edge_norm(train)
    return _sparse(
        torch.cat([user, item]),
        torch.cat([item, user]),
        torch.cat([weight, weight]),
        train.num_users + train.num_items,
    )


def edge_norm(train: Interactions) -> Tensor:
    """(E,) float32: 1 / sqrt(d_u d_i), the weight of each interaction in the adjacency."""
    return (train.user_counts[train.user] * train.item_counts[train.item]).float().rsqrt()


def _sparse(row: Tensor, column: Tensor, value: Tensor, size: int) -> Tensor:
    with _no_beta_warning():
        matrix_VV = torch.sparse_coo_tensor(
            torch.stack([row, column]), value, (size, size), check_invariants=False
        ).to_sparse_csr()
    first, column = _narrow(matrix_VV.crow_indices(), matrix_VV.col_indices())
    return _csr(first, column, matrix_VV.values())


def _narrow(first: Tensor, column: Tensor) -> tuple[Tensor, Tensor]:
    """As int32 where they fit: half as much to read, and what the CPU's kernels work with."""
    if max(len(first), len(column)) < 2**31:
        return first.int(), column.int()
    return first, column


def _csr(first: Tensor, column: Tensor, value: Tensor) -> Tensor:
    size = len(first) - 1
    with _no_beta_warning():
        return torch.sparse_csr_tensor(first, column, value, (size, size), check_invariants=False)


@contextmanager
def _no_beta_warning():
    """PyTorch announces once that its CSR support is in beta."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        yield


def _multiply(matrix_VV: Tensor, node_VD: Tensor) -> Tensor:
    """matrix @ node, for a CSR matrix; not differentiable."""
    if node_VD.device.type != "cpu":
        return matrix_VV @ node_VD
    # A weighted sum of rows for each row: the kernel behind embedding_bag fetches ahead and is two
    # to five times as fast as the CPU's sparse product.
    return F.embedding_bag(
        matrix_VV.col_indices(),
        node_VD.detach().contiguous(),
        matrix_VV.crow_indices(),
        mode="sum",
        per_sample_weights=matrix_VV.values().detach(),
        include_last_offset=True,
    )


def random_walk(adjacency_VV: Tensor, steps: int, generator: torch.Generator) -> Tensor:
    """(V, W) int64: a walk of ``steps`` uniform steps from every node; W = steps + 1.

    A node without an edge stays where it is.

    Args:
        adjacency_VV: sparse CSR, on the device of ``generator``; its values are not read.
        steps: how many.
        generator: draws the steps.
    """
    first_V, column = adjacency_VV.crow_indices()[:-1], adjacency_VV.col_indices()
    degree_V = adjacency_VV.crow_indices().diff()
    at_V = torch.arange(len(degree_V), device=column.device)
    walk = [at_V]
    for _ in range(steps):
        # In float64 a uniform draw times a degree rounds below the degree.
        draw_V = torch.rand(
            len(at_V), generator=generator, dtype=torch.float64, device=column.device
        )
        step_V = first_V[at_V] + (draw_V * degree_V[at_V]).long()
        moves_V = degree_V[at_V] > 0
        at_V = torch.where(moves_V, column[torch.where(moves_V, step_V, 0)], at_V)
        walk.append(at_V)
    return torch.stack(walk, dim=1)


def walk_mean(walk_VW: Tensor) -> tuple[Tensor, Tensor]:
    """The (V, V) matrix that averages over the distinct nodes of each walk, and its transpose.

    Both are sparse CSR float32; the rows of the first sum to 1.
    """
    size = len(walk_VW)
    pair = torch.unique(torch.arange(size, device=walk_VW.device)[:, None] * size + walk_VW)
    row, column = pair // size, pair % size
    value = 1 / torch.bincount(row, minlength=size)[row].float()
    return _sparse(row, column, value, size), _sparse(column, row, value, size)


class _Product(torch.autograd.Function):
    """adjacency @ node, where the adjacency is constant; its transpose serves the gradient."""

    @staticmethod
    def forward(ctx, adjacency_VV, transposed_VV, node_VD):
        ctx.adjacency_VV, ctx.transposed_VV = adjacency_VV, transposed_VV
        # Not every device multiplies sparse matrices in half precision: mixed precision stops here.
        with torch.autocast(node_VD.device.type, enabled=False):
            return _multiply(adjacency_VV, node_VD.to(adjacency_VV.dtype))

    @staticmethod
    def backward(ctx, g_VD):
        return None, None, _Product.apply(ctx.transposed_VV, ctx.adjacency_VV, g_VD)


def propagate(adjacency_VV: Tensor, node_VD: Tensor, transposed_VV: Tensor | None = None) -> Tensor:
    """(V, D): one step of propagation along a constant sparse adjacency, adjacency @ node.

    The gradient in ``node_VD`` is transposed @ g: the same fast CSR product.

    Args:
        adjacency_VV: (V, V) sparse CSR.
        node_VD: (V, D).
        transposed_VV: the transpose; None for a symmetric adjacency.
    """
    transposed_VV = adjacency_VV if transposed_VV is None else transposed_VV
    return _Product.apply(adjacency_VV, transposed_VV, node_VD)


class WeightedGraph(nn.Module):
    """The training graph with a weight for each interaction, the same in both directions.

    ``forward`` is differentiable in the weights and in the nodes; its products are sparse CSR
    products, and nothing of shape (E, D) is kept for the gradient.

    Args:
        train: the training interactions.
    """

    def __init__(self, train: Interactions):
        super().__init__()
        self.num_users, num_nodes = train.num_users, train.num_users + train.num_items
        user, item = train.user, train.item + train.num_users
        row, column = torch.cat([user, item]), torch.cat([item, user])
        order = torch.argsort(row * num_nodes + column)
        count_V = torch.bincount(row, minlength=num_nodes)
        first = torch.cat([count_V.new_zeros(1), count_V.cumsum(0)])
        first, column = _narrow(first, column[order])
        for name, index in {
            "user_E": user,
            "item_E": item,  # as a node: the users come first
            # The three below: where CSR rows begin, their columns, the interaction of each entry.
            "first": first,
            "column": column,
            "source": order % max(1, len(train)),
        }.items():
            self.register_buffer(name, index, persistent=False)

    def matrix(self, weight_E: Tensor) -> Tensor:
        """(V, V) sparse CSR: weight_e at (user, item) and (item, user) of interaction e."""
        return _csr(self.first, self.column, weight_E[self.source])

    def kept(self, keep_E: Tensor) -> Tensor:
        """(V, V) sparse CSR float32: :func:`normalised_adjacency` of some of the interactions.

        The rest is struck out of the whole graph's pattern: nothing is sorted.

        Args:
            keep_E: (E,) bool, which.
        """
        keep = keep_E[self.source]
        before = torch.cat([keep.new_zeros(1, dtype=torch.int64), keep.cumsum(0)])
        first = before[self.first]
        degree_V, column = first.diff(), self.column[keep]
        row = torch.arange(len(degree_V), device=column.device).repeat_interleave(degree_V)
        value = (degree_V[row] * degree_V[column]).float().rsqrt()
        return _csr(first.to(column.dtype), column, value)

    def forward(self, weight_E: Tensor, node_VD: Tensor) -> Tensor:
        """(V, D): matrix(weight_E) @ node_VD."""
        return _WeightedProduct.apply(self, weight_E, node_VD)


class _WeightedProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx, graph, weight_E, node_VD):
        # In full precision even where the caller's is mixed: see _Product.
        dtype = torch.promote_types(
            torch.promote_types(weight_E.dtype, node_VD.dtype), torch.float32
        )
        ctx.graph, ctx.dtypes = graph, (weight_E.dtype, node_VD.dtype)
        weight_E, node_VD = weight_E.to(dtype), node_VD.to(dtype)
        ctx.save_for_backward(weight_E, node_VD)
        with torch.autocast(node_VD.device.type, enabled=False):
            return _multiply(graph.matrix(weight_E), node_VD)

    @staticmethod
    @once_differentiable
    def backward(ctx, g_VD):
        weight_E, node_VD = ctx.saved_tensors
        graph, g_VD = ctx.graph, g_VD.to(node_VD.dtype)
        g_weight_E = g_node_VD = None
        with torch.autocast(g_VD.device.type, enabled=False):
            if ctx.needs_input_grad[1]:
                # d/dw_e = g_u . x_i + g_i . x_u, in blocks, so that (E, D) never exists whole.
                blocks = zip(graph.user_E.split(BLOCK), graph.item_E.split(BLOCK), strict=True)
                g_weight_E = torch.cat(
                    [
                        (g_VD[user] * node_VD[item]).sum(1) + (g_VD[item] * node_VD[user]).sum(1)
                        for user, item in blocks
                    ]
                ).to(ctx.dtypes[0])
            if ctx.needs_input_grad[2]:  # the matrix is symmetric
                g_node_VD = _multiply(graph.matrix(weight_E), g_VD).to(ctx.dtypes[1])
        return None, g_weight_E, g_node_VD
