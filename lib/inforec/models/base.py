"""The interface that every model stands behind, in three steps.

Recommender   forward(batch) -> Output
Ranker        + score(query) -> (B, N)
DotProduct    write only embed(query) -> ((B, D), (N, D)); forward and score are inherited

and, beside the rankers, one for labelled rows and one for ratings:

ClickModel    write only logit(batch) -> (B,); forward and law are inherited
RatingModel   write only predict(user, item) -> (B,); forward and rate are inherited

A model is built from the training interactions (or impressions) and its own frozen ``Config``; it
never reads files, trains itself, or knows how it is evaluated.

Shape letters: B rows, K candidates, N items, D embedding size, T values of a field, X = B N.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from inforec.distribution import ItemDistribution
from inforec.layers import take_rows
from inforec.types import Batch, Impressions, Interactions, Output, Query


class Recommender(nn.Module):
    """Anything that answers a batch with an :class:`~inforec.types.Output`.

    Attributes:
        builds_on: the name in REGISTRY of the nearest simpler model, in equations rather than in
            history, or None.
        adds: what leads from it to this one, in the few words that a line of the map has room for.
        closed_form: whether the model is solved in ``on_fit_start`` and has nothing to train.
        own_loss: whether the model's ``aux`` terms are a whole objective, to be trained alone.
        reconstructs: whether the scores are made to give back a user's whole 0-1 row: a dot-product
            model that the losses ``logistic`` and ``mse`` over all items are meant for.
        reads_history: whether users are known by their histories: a query must carry them.
        row_wise: whether training treats each row of a batch by itself, with no term that compares
            rows and no random draw for a row. Of several processes each then computes its rows
            only; otherwise each computes the model's output for the whole batch.
    """

    builds_on: ClassVar[str | None]
    adds: ClassVar[str]
    closed_form: ClassVar[bool] = False
    own_loss: ClassVar[bool] = False
    reconstructs: ClassVar[bool] = False
    reads_history: ClassVar[bool] = False
    row_wise: ClassVar[bool] = False

    @dataclass(frozen=True)
    class Config:
        """A model's hyper-parameters; each model defines its own and rejects bad values."""

    def __init__(self, train: Interactions | Impressions, config: Config | None = None):
        super().__init__()
        self.config = config if config is not None else self.Config()

    def forward(self, batch: Batch) -> Output:
        raise NotImplementedError(f"{type(self).__name__} must define forward(batch)")

    def on_fit_start(self) -> None:
        """Called once before training; closed forms are solved here."""

    def on_epoch_start(self, epoch: int) -> None:
        """Called before each epoch, counted from 1."""


class Ranker(Recommender):
    """A recommender that can score every item for a user."""

    def __init__(self, train: Interactions, config: Recommender.Config | None = None):
        super().__init__(train, config)
        self.num_users, self.num_items = train.num_users, train.num_items

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
            items_BKD = take_rows(item_ND, batch.items)
            logits_BK = torch.linalg.vecdot(query_BD[:, None], items_BKD)
        return Output(
            logits_BK,
            ItemDistribution.from_embeddings(query_BD, item_ND),
            batch.target,
            complete=batch.items is None,
            query=query_BD,
            item=item_ND,
        )


class ClickModel(Recommender):
    """A recommender that says, for each row of fields by itself, how likely its label is 1.

    Its output is one logit a row, and its law is Bernoulli: there is no distribution over items in
    it, and a softmax over its one column is the constant 1, with entropy 0 whatever the weights.
    Q_u is there where several items are scored for one user: over the whole catalogue by
    :meth:`law`, over the K items of one impression list by
    ``ItemDistribution.from_logits(logit_BK, complete=False)``.
    """

    def logit(self, batch: Batch) -> Tensor:
        """(B,) the log-odds of label 1, from ``batch.fields`` (and ``batch.history``)."""
        raise NotImplementedError(f"{type(self).__name__} must define logit(batch)")

    def forward(self, batch: Batch) -> Output:
        return Output(self.logit(batch), target=batch.target, law="bernoulli", complete=False)

    def law(self, query: Batch, item_fields: Mapping[str, Tensor]) -> ItemDistribution:
        """Q_u over a catalogue: the softmax of the logits of every item for every query.

        Args:
            query: B rows with the fields of the user and of the moment, and the history.
            item_fields: the fields of the N items, by name, (N,) or (N, T) each.
        """
        num_rows, num_items = len(query.user), len(next(iter(item_fields.values())))

        def each(tensor):
            return None if tensor is None else tensor.repeat_interleave(num_items, dim=0)

        fields = {name: each(tensor) for name, tensor in query.fields.items()}
        for name, tensor in item_fields.items():
            fields[name] = tensor.repeat(num_rows, *[1] * (tensor.ndim - 1))
        logit_X = self.logit(Batch(each(query.user), each(query.history), fields=fields))
        return ItemDistribution.from_logits(logit_X.view(num_rows, num_items))


class RatingModel(Recommender):
    """A recommender that says, for each pair of a user and an item by itself, the rating.

    Its law is a Gaussian around each prediction: what the user would say of the item, once there,
    and not which item there will be. A softmax of the predictions over all items can be formed, but
    nothing has trained it: the loss never sees an item that was not rated.

    Attributes:
        whole: "user" or "item" if all training ratings of one must come in one batch.
    """

    whole: str | None = None

    def __init__(self, train: Interactions, config: Recommender.Config | None = None):
        super().__init__(train, config)
        self.num_users, self.num_items = train.num_users, train.num_items
        self.num_ratings = len(train)
        self.lowest, self.highest = float(train.rating.min()), float(train.rating.max())
        self.mean = float(train.rating.double().mean())
        self.register_buffer("seen_U", train.user_counts > 0, persistent=False)
        self.register_buffer("seen_N", train.item_counts > 0, persistent=False)

    def predict(self, user_B: Tensor, item_B: Tensor) -> Tensor:
        """(B,) what the loss compares with the ratings."""
        raise NotImplementedError(f"{type(self).__name__} must define predict(user, item)")

    def rate(self, user_B: Tensor, item_B: Tensor) -> Tensor:
        """(B,) predictions to use: within the scale, its middle where user or item is unseen.

        The scale is from the lowest to the highest training rating.
        """
        rating_B = self.predict(user_B, item_B).clamp(self.lowest, self.highest)
        seen_B = self.seen_U[user_B] & self.seen_N[item_B]
        return torch.where(seen_B, rating_B, (self.lowest + self.highest) / 2)

    def forward(self, batch: Batch) -> Output:
        rating_B = self.predict(batch.user, batch.items[:, 0])
        return Output(rating_B, target=batch.target, law="gaussian", complete=False)
