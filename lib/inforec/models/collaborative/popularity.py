"""Popularity: the same list for everybody, the items taken most often in training.

Shape letters: B rows, N items.
"""

from __future__ import annotations

from torch import Tensor

from inforec.models.base import Ranker
from inforec.types import Interactions, Query


class Popularity(Ranker):
    """s_ui = number of training interactions of item i: nothing to learn, and a fair first bar."""

    builds_on = None
    adds = "how often an item was taken: one list for all"
    closed_form = True

    def __init__(self, train: Interactions, config: Ranker.Config | None = None):
        super().__init__(train, config)
        self.register_buffer("count_N", train.item_counts.float())

    def score(self, query: Query) -> Tensor:
        return self.count_N.expand(len(query.user), -1)
