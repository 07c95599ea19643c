"""Behaviour sequence transformer: self-attention over the liked items and the one shown now.

Shape letters: B rows, T longest history, S = T + 1 places, F fields, D embedding size, M = 2 D
numbers a place, H heads.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inforec.checks import require_number
from inforec.layers import FieldEmbedding, mlp
from inforec.models.base import ClickModel
from inforec.types import PAD, Batch, Impressions


class BST(ClickModel):
    """Chen et al. (2019), "Behavior Sequence Transformer for E-commerce Recommendation"::

        x_s = (v[item], p[how far back])          a place s: the history, then the item shown
        x = norm(x + dropout(heads(x) W_O)),      heads(x) = softmax(q k' / sqrt(M / H)) v,
                                                  q, k, v = x W_Q, x W_K, x W_V
        x = norm(x + dropout(leaky_relu(x W_1 + b_1) W_2 + b_2))
        logit = mlp(v[x_1], .., v[x_F], x_1, .., x_S), with leaky_relu

    With one block, which the paper found best. Places without an item are not seen
    by the others, and are zeros for the MLP.

    Differences from the paper:

    1. its position is the time between an item and the one shown; here it is how many liked items
       ago, as the times of MovieLens-1M are not complete;
    2. hidden layers of the MLP are of equal size;
    3. items without their categories.
    """

    builds_on = "din"
    adds = "history and item attend to one another"

    @dataclass(frozen=True)
    class Config:
        """What BST needs to know.

        Args:
            history: T, liked items a row carries.
            dim: embedding size D; a place has 2 D numbers.
            heads: H, of the attention; a divisor of 2 D.
            hidden: units of each hidden layer of the MLP.
            layers: how many hidden layers.
            dropout: in the block and in the MLP.
        """

        history: int = 20
        dim: int = 16
        heads: int = 4
        hidden: int = 128
        layers: int = 2
        dropout: float = 0.1

        def __post_init__(self):
            require_number("history", self.history, at_least=1, integer=True)
            require_number("dim", self.dim, at_least=1, integer=True)
            require_number("heads", self.heads, at_least=1, integer=True)
            if 2 * self.dim % self.heads:
                raise ValueError(
                    f"heads={self.heads!r} with dim={self.dim!r}: expected a divisor of 2 dim"
                )
            require_number("hidden", self.hidden, at_least=1, integer=True)
            require_number("layers", self.layers, at_least=0, integer=True)
            require_number("dropout", self.dropout, at_least=0, at_most=1)

    def __init__(self, train: Impressions, config: Config | None = None):
        super().__init__(train, config)
        config, width = self.config, 2 * self.config.dim
        train.require_history(config.history)
        places = config.history + 1
        self.vector = FieldEmbedding(train, config.dim)
        self.back_SD = nn.Parameter(torch.randn(places, config.dim) * 0.01)  # farthest first
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, False)
        self.inner, self.outer = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        inputs = len(train.fields) * config.dim + places * width
        self.deep = mlp(inputs, config.hidden, config.layers, config.dropout, nn.LeakyReLU)

    def block(self, x_BSM: Tensor, there_BS: Tensor) -> Tensor:
        """(B, S, M): one transformer block; only places that are there are attended to."""

        def drop(x):
            return F.dropout(x, self.config.dropout, self.training)

        heads_3BHSK = (
            self.qkv(x_BSM).unflatten(2, (3, self.config.heads, -1)).permute(2, 0, 3, 1, 4)
        )
        mixed_BHSK = F.scaled_dot_product_attention(
            *heads_3BHSK.unbind(0), attn_mask=there_BS[:, None, None, :]
        )
        x_BSM = self.norms[0](x_BSM + drop(self.out(mixed_BHSK.transpose(1, 2).flatten(2))))
        return self.norms[1](x_BSM + drop(self.outer(F.leaky_relu(self.inner(x_BSM)))))

    def logit(self, batch: Batch) -> Tensor:
        item_BS = torch.cat([batch.history, batch.fields["item"][:, None]], 1)
        there_BS = item_BS != PAD
        item_BSD = self.vector.of("item", item_BS)
        x_BSM = torch.cat([item_BSD, self.back_SD.expand_as(item_BSD)], 2)
        x_BSM = self.block(x_BSM, there_BS) * there_BS[..., None]
        field_BX = self.vector(batch.fields).flatten(1)
        return self.deep(torch.cat([field_BX, x_BSM.flatten(1)], 1))[:, 0]
