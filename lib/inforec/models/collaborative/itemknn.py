"""Item-based nearest neighbours: an item is recommended when it resembles what the user took.

Shape letters: B rows, U users, N items, S items of one block.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from inforec.checks import require_number
from inforec.layers import multi_hot
from inforec.models.base import Ranker
from inforec.types import Interactions, Query


class ItemKNN(Ranker):
    """Deshpande and Karypis (2004), "Item-based top-N recommendation algorithms".

        w_ij = n_ij / (sqrt(n_i n_j) + shrinkage),    s_ui = sum over j in history of w_ij,

    with n_ij the users who took both items, n_i those who took i, and w_ij kept only for the k
    items j nearest to i.

    Differences from the paper:
    1. shrinkage, which damps similarities that rest on few users;
    2. similarities are not rescaled to unit sum per item.
    """

    builds_on = None
    adds = "items that resemble those the user took"
    closed_form = True
    reads_history = True

    @dataclass(frozen=True)
    class Config:
        """neighbours: k kept for each item. shrinkage: added to the denominator, in users."""

        neighbours: int = 100
        shrinkage: float = 10.0

        def __post_init__(self):
            require_number("neighbours", self.neighbours, at_least=1, integer=True)
            require_number("shrinkage", self.shrinkage, at_least=0)

    def __init__(self, train: Interactions, config: Config | None = None):
        super().__init__(train, config)
        self.train_interactions = train
        self.register_buffer("weight_NN", None, persistent=False)

    def on_fit_start(self) -> None:
        train, config = self.train_interactions, self.config
        device = train.user.device
        ones = torch.ones(len(train), device=device)
        taken_NU = torch.sparse_coo_tensor(
            torch.stack([train.item, train.user]),
            ones,
            (self.num_items, self.num_users),
            check_invariants=False,
        )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
            taken_NU = taken_NU.to_sparse_csr()
        root_N = train.item_counts.float().sqrt()
        k = min(config.neighbours, self.num_items - 1)
        rows, columns, values = [], [], []
        # Similarities of a block of items with all others: (N, U) @ (U, S), sparse times dense.
        for block_S in torch.arange(self.num_items, device=device).split(1024):
            inside = (train.item >= block_S[0]) & (train.item <= block_S[-1])
            taken_US = torch.zeros(self.num_users, len(block_S), device=device)
            taken_US[train.user[inside], train.item[inside] - block_S[0]] = 1.0
            weight_SN = (taken_NU @ taken_US).T
            weight_SN /= root_N[block_S, None] * root_N + config.shrinkage + 1e-12
            weight_SN[torch.arange(len(block_S)), block_S] = 0.0
            top = weight_SN.topk(k)
            rows.append(top.indices.flatten())
            columns.append(block_S.repeat_interleave(k))
            values.append(top.values.flatten())
        # Row j holds the w_ij of all i: a history is then a sum of a few sparse rows.
        index = torch.stack([torch.cat(rows), torch.cat(columns)])
        self.weight_NN = torch.sparse_coo_tensor(
            index, torch.cat(values), (self.num_items, self.num_items), check_invariants=False
        ).coalesce()

    def score(self, query: Query) -> Tensor:
        taken_BN = multi_hot(query.history, self.num_items).to_sparse()
        return (taken_BN @ self.weight_NN).to_dense()
