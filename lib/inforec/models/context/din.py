"""Deep interest network: the items liked before count as far as they concern the one shown now.

Shape letters: B rows, T longest history, F fields, D embedding size, H hidden units, V values.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inforec.checks import require_number
from inforec.layers import FieldEmbedding, mlp
from inforec.models.base import ClickModel
from inforec.types import Batch, Impressions, Output


class Dice(nn.Module):
    """f(s) = p s + (1 - p) a s,  p = sigmoid((s - mean) / sqrt(variance)), a learned a unit.

    Zhou et al. (2018), section 5.2: mean and variance are those of the batch in training, running
    averages afterwards. With mean 0, and p a step, it is PReLU.
    """

    def __init__(self, units: int):
        super().__init__()
        self.norm = nn.BatchNorm1d(units, eps=1e-8, affine=False)
        self.slope_H = nn.Parameter(torch.zeros(units))

    def forward(self, signal_BH: Tensor) -> Tensor:
        norm = self.norm
        batch = self.training and len(signal_BH) > 1  # one row has no variance
        gate_BH = F.batch_norm(
            signal_BH, norm.running_mean, norm.running_var, training=batch, eps=norm.eps
        ).sigmoid()
        return signal_BH * (gate_BH + (1 - gate_BH) * self.slope_H)


class DIN(ClickModel):
    """Zhou et al. (2018), "Deep Interest Network for Click-Through Rate Prediction"::

        interest = sum over history of a(v[t], v[i]) v[t]          i the row's item, t one before it
        a(k, q) = mlp(k, q, k - q, k * q), one number, not normalised: strong interest stays strong
        logit = mlp(v[x_1], .., v[x_F], interest), with Dice

    Mini-batch aware regularisation (section 5.1) adds to the loss ``penalty`` times the sum over
    the values of the batch of the squared length of v[x] over n[x], the number of training rows
    that have the value in a field: only vectors of these values shrink, frequent ones less a step.

    Differences from the paper and its code (github.com/zhougr1993/DeepInterestNetwork):

    1. the unit a sees the difference and the product of coordinates, as in the code, instead of the
       outer product; its activation is the sigmoid, as in the code;
    2. the weights are not normalised, as in the paper; the code divides them by sqrt(D) and takes
       their softmax;
    3. the history holds items only, without their categories;
    4. the penalty is over the values of the row's fields, not over those of its history;
    5. hidden layers are of equal size.
    """

    builds_on = "widedeep"
    adds = "the history, weighted by the item shown"

    @dataclass(frozen=True)
    class Config:
        """What DIN needs to know.

        Args:
            history: T, liked items a row carries.
            dim: embedding size D.
            attention: hidden units of the activation unit.
            hidden: units of each hidden layer.
            layers: how many hidden layers.
            dropout: share of each hidden layer that is dropped in training.
            penalty: of the mini-batch aware regularisation.
        """

        history: int = 20
        dim: int = 16
        attention: int = 36
        hidden: int = 128
        layers: int = 2
        dropout: float = 0.1
        penalty: float = 0.0

        def __post_init__(self):
            require_number("history", self.history, at_least=1, integer=True)
            require_number("dim", self.dim, at_least=1, integer=True)
            require_number("attention", self.attention, at_least=1, integer=True)
            require_number("hidden", self.hidden, at_least=1, integer=True)
            require_number("layers", self.layers, at_least=0, integer=True)
            require_number("dropout", self.dropout, at_least=0, at_most=1)
            require_number("penalty", self.penalty, at_least=0)

    def __init__(self, train: Impressions, config: Config | None = None):
        super().__init__(train, config)
        config, dim = self.config, self.config.dim
        train.require_history(config.history)
        self.vector = FieldEmbedding(train, dim)
        self.unit = mlp(4 * dim, config.attention, 1, 0.0, nn.Sigmoid)
        inputs = (len(train.fields) + 1) * dim
        self.deep = mlp(
            inputs, config.hidden, config.layers, config.dropout, lambda: Dice(config.hidden)
        )
        count_V = torch.bincount(self.vector.places(train.fields), minlength=sum(self.vector.sizes))
        self.register_buffer("count_V", count_V, persistent=False)

    def interest(self, batch: Batch) -> Tensor:
        """(B, D): the history's vectors, each with its weight, summed."""
        key_BTD = self.vector.of("item", batch.history)
        query_BTD = self.vector.of("item", batch.fields["item"])[:, None].expand_as(key_BTD)
        pair_BTX = torch.cat([key_BTD, query_BTD, key_BTD - query_BTD, key_BTD * query_BTD], 2)
        return (self.unit(pair_BTX) * key_BTD).sum(1)  # the vector of padding is 0

    def logit(self, batch: Batch) -> Tensor:
        field_BX = self.vector(batch.fields).flatten(1)
        return self.deep(torch.cat([field_BX, self.interest(batch)], 1))[:, 0]

    def forward(self, batch: Batch) -> Output:
        output = super().forward(batch)
        if self.config.penalty and self.training:
            square_V = self.vector.value_VD.square().sum(1)
            read_V = torch.zeros_like(square_V)
            read_V[self.vector.places(batch.fields)] = 1.0
            mean = (read_V * square_V / self.count_V.clamp(min=1)).sum()
            output.aux["penalty"] = self.config.penalty * mean
        return output
