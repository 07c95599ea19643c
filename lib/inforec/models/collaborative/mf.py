"""Matrix factorisation: a vector for each user and each item, and their dot product.

Shape letters: B rows, U users, N items, D embedding size.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from inforec.checks import require_number
from inforec.layers import take_rows, unit
from inforec.models.base import DotProduct
from inforec.types import Interactions, Query


class MF(DotProduct):
    """Koren, Bell and Volinsky (2009), "Matrix Factorization Techniques for Recommender Systems".

        s_ui = p_u . q_i,

    their equation 1, used for ranking. With ``cosine`` the score is the cosine of the two vectors.

    Differences from the paper: no bias terms; the loss is chosen outside.
    """

    builds_on = None
    adds = "a learned vector for each user and each item"
    row_wise = True

    @dataclass(frozen=True)
    class Config:
        """dim: embedding size D. cosine: score by the cosine instead of the dot product."""

        dim: int = 64
        cosine: bool = False

        def __post_init__(self):
            require_number("dim", self.dim, at_least=1, integer=True)
            if not isinstance(self.cosine, bool):
                raise ValueError(f"cosine={self.cosine!r}: expected True or False")

    def __init__(self, train: Interactions, config: Config | None = None):
        super().__init__(train, config)
        self.user_UD = nn.Embedding(self.num_users, self.config.dim)
        self.item_ND = nn.Embedding(self.num_items, self.config.dim)
        nn.init.normal_(self.user_UD.weight, std=0.1)
        nn.init.normal_(self.item_ND.weight, std=0.1)

    def embed(self, query: Query) -> tuple[Tensor, Tensor]:
        user_BD, item_ND = take_rows(self.user_UD.weight, query.user), self.item_ND.weight
        return (unit(user_BD), unit(item_ND)) if self.config.cosine else (user_BD, item_ND)
