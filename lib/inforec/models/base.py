"""The interface that every model stands behind, in three steps.

Recommender   forward(batch) -> Output
Ranker        + score(query) -> (B, N)
DotProduct    write only embed(query) -> ((B, D), (N, D)); forward and score are inherited

A model is built from the training interactions and its own frozen ``Config``; it never reads files,
trains itself, or knows how it is evaluated.

Shape letters: B rows, K candidates, N items, D embedding size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inforec.distribution import ItemDistribution
from inforec.types import Batch, Interactions, Output, Query


class Recommender(nn.Module):
    """Anything that answers a batch with an :class:`~inforec.types.Output`.

    Attributes:
        closed_form: whether the model is solved in ``on_fit_start`` and has nothing to train.
        own_loss: whether the model's ``aux`` terms are a whole objective, to be trained alone.
        reconstructs: whether the scores are made to give back a user's whole 0-1 row: a dot-product
            model that the losses ``logistic`` and ``mse`` over all items are meant for.
    """

    closed_form: ClassVar[bool] = False
    own_loss: ClassVar[bool] = False
    reconstructs: ClassVar[bool] = False

    @dataclass(frozen=True)
    class Config:
        """A model's hyper-parameters; each model defines its own and rejects bad values."""

    def __init__(self, train: Interactions, config: Config | None = None):
        super().__init__()
        self.config = config if config is not None else self.Config()
        self.num_users, self.num_items = train.num_users, train.num_items

    def forward(self, batch: Batch) -> Output:
        raise NotImplementedError(f"{type(self).__name__} must define forward(batch)")

    def on_fit_start(self) -> None:
        """Called once before training; closed forms are solved here."""

    def on_epoch_start(self, epoch: int) -> None:
        """Called before each epoch, counted from 1."""


class Ranker(Recommender):
    """A recommender that can score every item for a user."""

    def score(self, query: Query) -> Tensor:
        """(B, N) logits of all items."""
        raise NotImplementedError(f"{type(self).__name__} must define score(query)")

    def law(self, query: Query) -> ItemDistribution:
        """Q_u over the whole catalogue at temperature 1."""
        return ItemDistribution.from_logits(self.score(query))

    def forward(self, batch: Batch) -> Output:
        logits_BN = self.score(batch)
        distribution = ItemDistribution.from_logits(logits_BN)
        if batch.items is None:
            return Output(logits_BN, distribution, batch.target)
        logits_BK = logits_BN.gather(1, batch.items)
        return Output(logits_BK, distribution, batch.target, complete=False)


class DotProduct(Ranker):
    """A ranker whose score is the dot product of a user vector and an item vector."""

    def embed(self, query: Query) -> tuple[Tensor, Tensor]:
        """((B, D), (N, D)): the vectors of the users asked for and of all items."""
        raise NotImplementedError(f"{type(self).__name__} must define embed(query)")

    def score(self, query: Query) -> Tensor:
        query_BD, item_ND = self.embed(query)
        return query_BD @ item_ND.T

    def law(self, query: Query) -> ItemDistribution:
        return ItemDistribution.from_embeddings(*self.embed(query))

    def forward(self, batch: Batch) -> Output:
        return self.answer(batch, *self.embed(batch))

    def answer(self, batch: Batch, query_BD: Tensor, item_ND: Tensor) -> Output:
        """What the model says about the batch, given its users' and all items' vectors."""
        logits_BK = None
        if batch.items is not None:
            logits_BK = torch.einsum("bd,bkd->bk", query_BD, F.embedding(batch.items, item_ND))
        return Output(
            logits_BK,
            ItemDistribution.from_embeddings(query_BD, item_ND),
            batch.target,
            complete=batch.items is None,
            query=query_BD,
            item=item_ND,
        )
