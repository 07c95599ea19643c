"""Mult-VAE: a user's items through a Gaussian code, and back to a law over all items.

Shape letters: B rows, T longest history, N items, H hidden units, D numbers of the code.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from inforec.checks import require_number
from inforec.layers import as_dot_product, corrupted_sum, start_dense
from inforec.models.base import DotProduct
from inforec.regularizers import gaussian_rate
from inforec.types import PAD, Batch, Interactions, Output, Query


class MultVAE(DotProduct):
    """Liang et al. (2018), "Variational Autoencoders for Collaborative Filtering", section 2::

        m, log s^2 = W2 tanh(W1 dropout(x / ||x||) + b1) + b2     (D and D), x the 0-1 history
        z = m + s * noise                                         z = m outside training
        scores = W4 tanh(W3 z + b3) + b4,    Q = softmax(scores)

        sum over a user's items of -log Q_u(i) + weight * KL(N(m, diag s^2) || N(0, I))

    The KL is the rate of :func:`inforec.regularizers.gaussian_rate`. It is divided by the number of
    items, as the loss outside is a mean over interactions: with the softmax loss at temperature 1,
    ``weight`` is the paper's beta, and 1 is the evidence lower bound. Its term in the loss grows
    linearly to ``weight`` over the first ``anneal`` epochs.

    Differences from the paper and its code (github.com/dawenl/vae_cf):

    1. there, users of the evaluation are not those of training; here a user's training items are
       both input and target, and the held-out items of the same users are ranked;
    2. annealing goes by epochs, not by steps, and to ``weight`` itself, which is searched; the
       paper stops it where validation is best;
    3. weight decay acts on the biases too;
    4. the loss is chosen outside; with batches of pairs the rate of a row is divided by the number
       of its user's items, so that an epoch sees the same sum.
    """

    builds_on = "dae"
    adds = "a Gaussian code, with its rate in the loss"
    reconstructs = True
    reads_history = True

    @dataclass(frozen=True)
    class Config:
        """What Mult-VAE needs to know.

        Args:
            hidden: H, units of the one hidden layer of encoder and decoder.
            dim: D, numbers of the code.
            dropout: share of the history's items that are hidden from the encoder in training.
            weight: of the rate in the loss.
            anneal: epochs over which the rate's term grows to ``weight``; 0 for none.
        """

        hidden: int = 600
        dim: int = 200
        dropout: float = 0.5
        weight: float = 0.2
        anneal: int = 20

        def __post_init__(self):
            require_number("hidden", self.hidden, at_least=1, integer=True)
            require_number("dim", self.dim, at_least=1, integer=True)
            require_number("dropout", self.dropout, at_least=0, at_most=1)
            require_number("weight", self.weight, at_least=0)
            require_number("anneal", self.anneal, at_least=0, integer=True)

    def __init__(self, train: Interactions, config: Config | None = None):
        super().__init__(train, config)
        hidden, dim = self.config.hidden, self.config.dim
        self.input_NH = nn.Parameter(torch.empty(self.num_items, hidden))
        self.input_H = nn.Parameter(torch.empty(hidden))
        self.code = nn.Linear(hidden, 2 * dim)
        self.hidden = nn.Linear(dim, hidden)
        self.output = nn.Linear(hidden, self.num_items)
        start_dense(self)
        self.annealed = 1.0

    def on_epoch_start(self, epoch: int) -> None:
        self.annealed = min(1.0, epoch / self.config.anneal) if self.config.anneal else 1.0

    def encode(self, history_BT: Tensor) -> tuple[Tensor, Tensor]:
        """((B, D), (B, D)): mean and log-variance of the codes of these histories."""
        hidden_BH = corrupted_sum(
            history_BT,
            self.input_NH,
            corruption=self.config.dropout,
            training=self.training,
            unit_length=True,
        )
        code_BX = self.code((hidden_BH + self.input_H).tanh()).to(self.input_NH.dtype)
        mean_BD, log_variance_BD = code_BX.chunk(2, dim=1)
        return mean_BD, log_variance_BD

    def decode(self, code_BD: Tensor) -> tuple[Tensor, Tensor]:
        """((B, H + 1), (N, H + 1)): the vectors of codes and items, the bias as a coordinate."""
        hidden_BH = self.hidden(code_BD).to(self.input_NH.dtype).tanh()
        return as_dot_product(hidden_BH, self.output)

    def embed(self, query: Query) -> tuple[Tensor, Tensor]:
        return self.decode(self.encode(query.history)[0])

    def forward(self, batch: Batch) -> Output:
        if not self.training:
            return super().forward(batch)
        mean_BD, log_variance_BD = self.encode(batch.history)
        code_BD = mean_BD + (log_variance_BD / 2).exp() * torch.randn_like(mean_BD)
        output = self.answer(batch, *self.decode(code_BD))
        rate_B, count_B = gaussian_rate(mean_BD, log_variance_BD), (batch.history != PAD).sum(1)
        per_item = rate_B.sum() / count_B.sum()
        if batch.items is not None:  # rows are pairs, not users
            per_item = (rate_B / count_B).mean()
        output.aux["rate"] = self.config.weight * self.annealed * per_item
        return output
