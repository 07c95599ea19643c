"""The user-item graph: its normalised adjacency and one step of propagation.

Shape letters: U users, N items, V = U + N nodes (users first), D embedding size.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from inforec.types import Interactions


def normalised_adjacency(train: Interactions) -> Tensor:
    """D^(-1/2) A D^(-1/2) of the bipartite graph, a (V, V) sparse CSR float32 tensor.

    A joins user u and item i where u took i in training; D holds the node degrees. A node without
    an edge keeps an empty row. He et al. (2020), LightGCN, section 3.1.
    """
    num_users, num_nodes = train.num_users, train.num_users + train.num_items
    user, item = train.user, train.item + num_users
    weight = (train.user_counts[user] * train.item_counts[item - num_users]).float().rsqrt()
    with warnings.catch_warnings():
        # PyTorch announces once that its CSR support is in beta.
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_coo_tensor(
            torch.stack([torch.cat([user, item]), torch.cat([item, user])]),
            torch.cat([weight, weight]),
            (num_nodes, num_nodes),
            check_invariants=False,
        ).to_sparse_csr()


class _SymmetricProduct(torch.autograd.Function):
    """adjacency @ node, where the adjacency is symmetric and constant.

    The gradient in ``node`` is adjacency.T @ g = adjacency @ g: the same fast CSR product, with no
    transposed copy of the matrix.
    """

    @staticmethod
    def forward(ctx, adjacency_VV, node_VD):
        ctx.adjacency_VV = adjacency_VV
        # Not every device multiplies sparse matrices in half precision: mixed precision stops here.
        with torch.autocast(node_VD.device.type, enabled=False):
            return adjacency_VV @ node_VD.to(adjacency_VV.dtype)

    @staticmethod
    def backward(ctx, g_VD):
        with torch.autocast(g_VD.device.type, enabled=False):
            return None, ctx.adjacency_VV @ g_VD.to(ctx.adjacency_VV.dtype)


def propagate(adjacency_VV: Tensor, node_VD: Tensor) -> Tensor:
    """(V, D): one step of propagation along a symmetric sparse adjacency."""
    return _SymmetricProduct.apply(adjacency_VV, node_VD)
