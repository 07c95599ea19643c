"""DirectAU: pull users to their items, spread users and items over the sphere; no negatives.

Shape letters: B rows, T longest history, P pairs (user, positive), U users, N items, D embedding
size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from inforec.checks import require_number
from inforec.models.graph.lightgcn import LightGCN
from inforec.regularizers import alignment, uniformity
from inforec.types import PAD, Batch, Output


class DirectAU(LightGCN):
    """Wang et al. (2022), "Towards Representation Alignment and Uniformity in Collaborative
    Filtering", section 4::

        l_align   = mean over pairs of || f(u) - f(i) ||^2
        l_uniform = 1/2 log mean_{u,u'} exp(-2 || f(u) - f(u') ||^2)
                  + 1/2 log mean_{i,i'} exp(-2 || f(i) - f(i') ||^2)
        L = weight * (l_align + gamma * l_uniform)

    with f the unit vectors of the batch's rows and of its interactions' items, each as often as it
    is drawn, and the means in l_uniform over pairs of different rows. The encoder is LightGCN; its
    default here, no layer, is matrix factorisation. The term is a whole objective (``own_loss``)
    and also goes next to a ranking loss.

    Differences from the paper and its code:

    1. with batches of users (all of a user's items at once) a user counts once in its uniformity;
    2. ``cosine`` scores by the vectors that are trained; without it, as in the code, by the dot
       product of the same vectors before they are normalised;
    3. weight decay acts on all of E^(0), as in :class:`LightGCN`.
    """

    builds_on = "lightgcn"
    adds = "alignment and uniformity, no negatives"
    own_loss = True
    row_wise = False  # uniformity compares the rows of a batch

    @dataclass(frozen=True)
    class Config(LightGCN.Config):
        """gamma: weight of uniformity against alignment. weight: of the whole term."""

        layers: int = 0
        gamma: float = 1.0
        weight: float = 1.0

        def __post_init__(self):
            super().__post_init__()
            require_number("gamma", self.gamma, at_least=0)
            require_number("weight", self.weight, at_least=0)

    def forward(self, batch: Batch) -> Output:
        if not self.training:
            return super().forward(batch)
        node_VD = self.propagated()
        output = self.answer(batch, *self.select(node_VD, batch))
        user_UD, item_ND = node_VD.split([self.num_users, self.num_items])
        if batch.items is None:
            row_P, place_P = (batch.target != PAD).nonzero(as_tuple=True)
            item_P = batch.target[row_P, place_P]
        else:
            row_P = torch.arange(len(batch.user), device=batch.user.device)
            item_P = batch.items[row_P, batch.target]
        user_BD, item_PD = F.embedding(batch.user, user_UD), F.embedding(item_P, item_ND)
        aligned = alignment(F.embedding(row_P, user_BD), item_PD).mean()
        item_X, count_X = item_P.unique(return_counts=True)
        spread = uniformity(user_BD) + uniformity(F.embedding(item_X, item_ND), count_B=count_X)
        output.aux["contrast"] = self.config.weight * (aligned + self.config.gamma * spread / 2)
        return output
