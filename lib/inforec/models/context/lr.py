"""Logistic regression: one weight for each value of each field.

Shape letters: B rows.
"""

from __future__ import annotations

from torch import Tensor

from inforec.layers import LinearTerm
from inforec.models.base import ClickModel
from inforec.types import Batch, Impressions


class LR(ClickModel):
    """Richardson, Dominowska and Ragno (2007), "Predicting Clicks", in today's form.

        logit = w_0 + sum over fields f of w[x_f]

    with x_f the row's value of the field; of several values the mean weight. It ranks all items
    alike for every user: a user's weight moves all of that user's rows together.

    Differences from the paper: its features are numbers measured of advertisements; here each value
    of a field is a feature of its own. The penalty on the weights is the optimiser's.
    """

    builds_on = None
    adds = "a weight for each value of each field"
    row_wise = True

    def __init__(self, train: Impressions, config: ClickModel.Config | None = None):
        super().__init__(train, config)
        self.linear = LinearTerm(train)

    def logit(self, batch: Batch) -> Tensor:
        return self.linear(batch.fields)
