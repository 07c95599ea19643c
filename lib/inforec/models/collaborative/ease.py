"""EASE: a linear auto-encoder with a closed form.

Shape letters: B rows, N items.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from inforec.checks import require_number
from inforec.layers import multi_hot
from inforec.models.base import Ranker
from inforec.types import Interactions, Query

MOST_ITEMS = 25_000  # above, three float64 and one float32 matrix of (N, N) pass 16 GiB


class EASE(Ranker):
    """Steck (2019), "Embarrassingly Shallow Autoencoders for Sparse Data", section 3.

        min_W ||X - X W||^2 + l2 ||W||^2  with diag(W) = 0:
        P = (X'X + l2 I)^-1,    W_ij = -P_ij / P_jj  (i != j),    scores = X W.

    X is the (U, N) matrix of training interactions. The inverse is taken in float64: it is exact
    enough there, and single precision is not when l2 is small.

    Differences from the paper: none known.

    Raises:
        ValueError: for a catalogue whose (N, N) matrices would not fit in common memory.
    """

    builds_on = "itemknn"
    adds = "the similarities are learned, by ridge regression"
    closed_form = True
    reads_history = True

    @dataclass(frozen=True)
    class Config:
        """l2: the ridge penalty on the weights."""

        l2: float = 200.0

        def __post_init__(self):
            require_number("l2", self.l2, above=0)

    def __init__(self, train: Interactions, config: Config | None = None):
        super().__init__(train, config)
        if self.num_items > MOST_ITEMS:
            raise ValueError(
                f"EASE on {self.num_items:,} items: expected at most {MOST_ITEMS:,}, because its "
                f"(N, N) matrices would take {28 * self.num_items**2 / 2**30:.0f} GiB"
            )
        self.train_interactions = train
        self.register_buffer("weight_NN", torch.zeros(self.num_items, self.num_items))

    def on_fit_start(self) -> None:
        gram_NN = torch.zeros_like(self.weight_NN, dtype=torch.float64)
        for history_BT in self.train_interactions.history_UT.split(4096):
            taken_BN = multi_hot(history_BT, self.num_items)
            gram_NN += taken_BN.T.to_sparse() @ taken_BN  # counts: exact in single precision
        gram_NN.diagonal().add_(self.config.l2)
        inverse_NN = torch.cholesky_inverse(torch.linalg.cholesky(gram_NN))
        weight_NN = -inverse_NN / inverse_NN.diagonal()
        weight_NN.fill_diagonal_(0.0)
        self.weight_NN = weight_NN.float().contiguous()  # rows in memory: they are what is summed

    def score(self, query: Query) -> Tensor:
        return multi_hot(query.history, self.num_items).to_sparse() @ self.weight_NN
