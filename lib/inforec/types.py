"""The records that the parts of inforec exchange.

Query, Batch and Output are not frozen only because Fabric copies them field by field.

Shape letters: B rows of a batch, U users, N items, E interactions or impressions, K candidates,
T longest history or most values of a field, D embedding size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from inforec.distribution import ItemDistribution

PAD = -1  # fills the unused places of a (B, T) table of item indices


@dataclass(frozen=True)
class Interactions:
    """Who took what: one split of a data set as parallel 1-D tensors.

    Args:
        user: (E,) int64, in 0 .. num_users - 1.
        item: (E,) int64, in 0 .. num_items - 1.
        num_users: how many users there are, U.
        num_items: how many items there are, N.
        rating: (E,) float32, or None.
        time: (E,) int64, seconds or any other increasing clock, or None.
    """

    user: Tensor
    item: Tensor
    num_users: int
    num_items: int
    rating: Tensor | None = None
    time: Tensor | None = None

    def __post_init__(self):
        assert self.user.shape == self.item.shape and self.user.ndim == 1
        assert self.user.dtype == self.item.dtype == torch.int64

    def __len__(self) -> int:
        return len(self.user)

    def rated(self, index: Tensor) -> Batch:
        """The ratings at ``index`` (B,) as a batch: items (B, 1), target (B,) the ratings."""
        return Batch(self.user[index], items=self.item[index][:, None], target=self.rating[index])

    def to(self, device) -> Interactions:
        def move(tensor):
            return None if tensor is None else tensor.to(device)

        return replace(
            self,
            user=move(self.user),
            item=move(self.item),
            rating=move(self.rating),
            time=move(self.time),
        )

    @cached_property
    def user_counts(self) -> Tensor:
        """(U,) int64: how many interactions each user has."""
        return torch.bincount(self.user, minlength=self.num_users)

    @cached_property
    def item_counts(self) -> Tensor:
        """(N,) int64: how many interactions each item has."""
        return torch.bincount(self.item, minlength=self.num_items)

    @cached_property
    def history_UT(self) -> Tensor:
        """(U, T) int64: each user's items, in time order where time is known, padded with -1."""
        order = torch.arange(len(self), device=self.user.device)
        if self.time is not None:
            order = torch.argsort(self.time, stable=True)
        order = order[torch.argsort(self.user[order], stable=True)]
        user, item = self.user[order], self.item[order]
        first = self.user_counts.cumsum(0) - self.user_counts
        place = torch.arange(len(self), device=user.device) - first[user]
        width = int(self.user_counts.max()) if len(self) else 0
        table = torch.full((self.num_users, width), PAD, dtype=torch.int64, device=user.device)
        table[user, place] = item
        return table


@dataclass(frozen=True)
class Impressions:
    """What was shown to whom and what came of it: one split of a click-through data set.

    Args:
        user: (E,) int64, which rows belong to one user, whatever the vocabularies know.
        fields: by name (E,) int64, or (E, T) padded with -1 where a row has several values. Numbers
            count from 1 in the field's vocabulary; 0 stands for what training never saw.
        label: (E,) float32, 1 or 0.
        sizes: by name how many numbers a field has, 0 included.
        history: (E, T) int64, numbers of the field "item": what the user liked earlier, oldest
            first, padded with -1; None where not asked for.
    """

    user: Tensor
    fields: Mapping[str, Tensor]
    label: Tensor
    sizes: Mapping[str, int]
    history: Tensor | None = None

    def __post_init__(self):
        assert set(self.fields) == set(self.sizes)
        assert all(len(tensor) == len(self.label) for tensor in (self.user, *self.fields.values()))

    def __len__(self) -> int:
        return len(self.label)

    def to(self, device) -> Impressions:
        return replace(
            self,
            user=self.user.to(device),
            fields={name: tensor.to(device) for name, tensor in self.fields.items()},
            label=self.label.to(device),
            history=None if self.history is None else self.history.to(device),
        )

    def require_history(self, length: int) -> None:
        """Raise ValueError unless each row carries ``length`` liked items and has an item."""
        carried = None if self.history is None else self.history.shape[1]
        if carried != length or "item" not in self.fields:
            raise ValueError(
                f"history={length!r}: expected impressions that carry as many liked items a row, "
                f"found {carried}: load_impressions(.., history={length}) makes them"
            )

    @cached_property
    def table_EX(self) -> Tensor:
        """(E, X) int64: user, fields and history side by side, so that a row is read in one go."""
        return torch.cat([t[:, None] if t.ndim == 1 else t for t in self._columns()], 1)

    def _columns(self) -> list[Tensor]:
        history = [] if self.history is None else [self.history]
        return [self.user, *self.fields.values(), *history]

    def rows(self, index: Tensor | slice) -> Batch:
        """The rows at ``index`` as a batch."""
        if isinstance(index, slice):
            table_BX, label_B = self.table_EX[index], self.label[index]
        else:  # for whole rows several times as fast as [index]
            table_BX, label_B = (t.index_select(0, index) for t in (self.table_EX, self.label))
        columns = self._columns()
        widths = [1 if column.ndim == 1 else column.shape[1] for column in columns]
        parts = [
            part_BT[:, 0] if column.ndim == 1 else part_BT
            for column, part_BT in zip(columns, table_BX.split(widths, 1), strict=True)
        ]
        return Batch(
            parts[0],
            None if self.history is None else parts[-1],
            target=label_B,
            fields=dict(zip(self.fields, parts[1:], strict=False)),
        )


@dataclass
class Query:
    """Whom to recommend to.

    Args:
        user: (B,) int64.
        history: (B, T) int64, the items each user has taken, padded with -1; None where not needed.
    """

    user: Tensor
    history: Tensor | None = None


@dataclass
class Batch(Query):
    """One training step's data.

    Args:
        items: (B, K) int64, the candidates to score, or None for the whole catalogue.
        target: (B,) int64, the column of the positive among ``items``, or its item index where
            ``items`` is None; other shapes where a model family says so.
        log_q: (B, K) float, the log-probability with which each candidate was drawn, in nats.
        fields: by name what a click-through model reads, as in :class:`Impressions`.
        triples: (B, 3) int64, knowledge-graph triples.
    """

    items: Tensor | None = None
    target: Tensor | None = None
    log_q: Tensor | None = None
    fields: dict[str, Tensor] | None = None
    triples: Tensor | None = None

    def positives(self) -> Tensor:
        """(X,) int64: the distinct positive items of the batch, ascending.

        They are the items at ``target`` where ``items`` is given, else all of ``target``.
        """
        item = self.target
        if self.items is not None:
            item = self.items.gather(1, self.target[:, None])
        return torch.unique(item[item != PAD])

    def rows(self, index: Tensor | slice) -> Batch:
        """The rows at ``index``; ``triples`` stay whole, they are not of the rows."""
        fields = self.fields
        return replace(
            self,
            **{name: _rows(getattr(self, name), index) for name in _OF_ROWS},
            fields=None if fields is None else {n: t[index] for n, t in fields.items()},
        )


@dataclass
class Output:
    """What a model says about a batch: logits, never probabilities.

    Its law is the model's own reading of the columns. A loss from outside may read them otherwise:
    the losses of whole rows take each logit of a "categorical" output for one of a Bernoulli
    variable, and the softmax is then the law of the item taken, if just one is.

    Args:
        logits: (B, K) scores of ``Batch.items``, or (B, N), or (B,) one of each row with the law
            "bernoulli" or "gaussian"; None where only the law is needed.
        distribution: Q_u over the whole catalogue at temperature 1, or None.
        target: as in :class:`Batch`.
        law: "categorical" (one choice among the columns), "bernoulli" (each column by itself) or
            "gaussian" (a number around each logit, such as a rating).
        complete: whether the columns of ``logits`` are the whole catalogue.
        query: (B, D) user vectors of a dot-product model, or None.
        item: (N, D) item vectors of a dot-product model, or None.
        aux: the model's own scalar terms of the loss, by name.
    """

    logits: Tensor | None = None
    distribution: ItemDistribution | None = None
    target: Tensor | None = None
    law: str = "categorical"
    complete: bool = True
    query: Tensor | None = None
    item: Tensor | None = None
    aux: dict[str, Tensor] = field(default_factory=dict)

    def rows(self, index: Tensor | slice) -> Output:
        """The same about the rows at ``index``; ``item`` and ``aux`` stay as they are."""
        return replace(
            self,
            **{name: _rows(getattr(self, name), index) for name in ("logits", "target", "query")},
            distribution=None if self.distribution is None else self.distribution.rows(index),
        )


_OF_ROWS = ("user", "history", "items", "target", "log_q")


def _rows(tensor: Tensor | None, index: Tensor | slice) -> Tensor | None:
    return None if tensor is None else tensor[index]
