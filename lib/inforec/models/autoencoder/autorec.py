"""AutoRec: an auto-encoder of a partly observed row of ratings.

Shape letters: B ratings, E training ratings, R distinct rows among them, M columns (users of an
item, or items of a user), H hidden units, X training ratings of the R rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inforec.checks import require_choice, require_number
from inforec.models.base import RatingModel
from inforec.types import Batch, Interactions, Output

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "sigmoid": torch.sigmoid,
}


class AutoRec(RatingModel):
    """Sedhain et al. (2015), "AutoRec: Autoencoders Meet Collaborative Filtering"::

        h(r) = f(W g(V r + mu) + b)
        minimise over the rows r
        sum over observed entries (r - h(r))^2 + lambda / 2 (|W|^2 + |V|^2)

    with r the ratings of one item by all users (item-based), or of one user (user-based), 0 where
    there is none.

    Differences from the paper and its code (github.com/mesuvash/NNRec):

    1. Adam on batches of rows for resilient propagation or L-BFGS on all rows, and the sum is
       divided by the number of ratings; so lambda is the paper's, and half of it the lambda of the
       code, which halves the squares;
    2. the output is added to the mean of the training ratings, so that b starts near 0 (the code
       has this as an option, off in its settings); a sigmoid f, which the paper leaves open, is
       stretched to the scale of the ratings;
    3. as in the code b and mu are not penalised, and predictions are cut to the scale; the code's
       settings make the hidden layer binary, which the paper does not.
    """

    builds_on = None
    adds = "a row of ratings through a hidden layer"

    @dataclass(frozen=True)
    class Config:
        """What AutoRec needs to know.

        Args:
            rows: "item" or "user": whose ratings are a row.
            hidden: H, units of the hidden layer.
            hidden_activation: g, "identity" or "sigmoid".
            output_activation: f, "identity" or "sigmoid".
            penalty: lambda.
        """

        rows: str = "item"
        hidden: int = 500
        hidden_activation: str = "sigmoid"
        output_activation: str = "identity"
        penalty: float = 100.0

        def __post_init__(self):
            require_choice("rows", self.rows, ("item", "user"))
            require_number("hidden", self.hidden, at_least=1, integer=True)
            require_choice("hidden_activation", self.hidden_activation, ACTIVATIONS)
            require_choice("output_activation", self.output_activation, ACTIVATIONS)
            require_number("penalty", self.penalty, at_least=0)

    def __init__(self, train: Interactions, config: Config | None = None):
        super().__init__(train, config)
        self.whole = self.config.rows
        row_E, column_E = self._oriented(train.user, train.item)
        order_E = row_E.argsort(stable=True)
        sizes = self._oriented(self.num_users, self.num_items)
        count = torch.bincount(row_E, minlength=sizes[0])
        self.register_buffer("count", count, persistent=False)
        self.register_buffer("first", count.cumsum(0) - count, persistent=False)
        self.register_buffer("column_E", column_E[order_E], persistent=False)
        self.register_buffer("rating_E", train.rating[order_E], persistent=False)
        hidden = self.config.hidden
        self.encoder_MH = nn.Parameter(torch.empty(sizes[1], hidden))
        self.encoder_H = nn.Parameter(torch.zeros(hidden))
        self.decoder_MH = nn.Parameter(torch.empty(sizes[1], hidden))
        self.decoder_M = nn.Parameter(torch.zeros(sizes[1]))
        nn.init.xavier_uniform_(self.encoder_MH)
        nn.init.xavier_uniform_(self.decoder_MH)

    def _oriented(self, user, item):
        """(row, column)."""
        return (item, user) if self.config.rows == "item" else (user, item)

    def encode(self, row_R: Tensor) -> Tensor:
        """(R, H) the hidden units of these rows: the rows of V that a rating selects are summed."""
        count_R = self.count[row_R]
        start_R = count_R.cumsum(0) - count_R
        at_X = torch.repeat_interleave(self.first[row_R] - start_R, count_R)
        at_X = at_X + torch.arange(len(at_X), device=at_X.device)
        sum_RH = F.embedding_bag(
            self.column_E[at_X],
            self.encoder_MH,
            start_R,
            mode="sum",
            per_sample_weights=self.rating_E[at_X].to(self.encoder_MH.dtype),
        )
        return ACTIVATIONS[self.config.hidden_activation](sum_RH + self.encoder_H)

    def predict(self, user_B: Tensor, item_B: Tensor) -> Tensor:
        row_B, column_B = self._oriented(user_B, item_B)
        row_R, place_B = row_B.unique(return_inverse=True)
        output_RM = self.encode(row_R) @ self.decoder_MH.T + self.decoder_M
        # Only here do the unobserved entries drop out of the loss and of its gradient.
        at_B = place_B * output_RM.shape[1] + column_B
        output_B = output_RM.flatten().index_select(0, at_B)
        if self.config.output_activation == "identity":
            return self.mean + output_B
        return self.lowest + (self.highest - self.lowest) * output_B.sigmoid()

    def forward(self, batch: Batch) -> Output:
        output = super().forward(batch)
        if self.config.penalty:
            weights = [w.flatten() for w in (self.encoder_MH, self.decoder_MH)]
            square = sum(torch.dot(w, w) for w in weights)
            output.aux["penalty"] = self.config.penalty / 2 * square / self.num_ratings
        return output
