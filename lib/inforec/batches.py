"""Training batches: drawn on the device where the data live, with no Python loop over rows.

Every epoch is a function of (seed, epoch) alone, so a resumed run sees the batches that the
unbroken run would have seen.

Shape letters: B rows, T longest row, K candidates, X draws, E interactions or impressions, U users,
N items.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from inforec.types import Batch, Impressions, Interactions


def epoch_generator(seed: int, epoch: int, device: torch.device) -> torch.Generator:
    """A random generator that depends on the seed and the epoch only."""
    return torch.Generator(device).manual_seed(seed * 1_000_003 + epoch)


class UserBatches:
    """Rows are users with all their training items: what a loss over the whole catalogue needs.

    One row of scores serves all of a user's positives, and each user's P_u and Q_u meet once an
    epoch. Batches hold about ``batch_size`` interactions each.

    Args:
        train: the training interactions.
        batch_size: interactions a step, on average.
        seed: fixes the order of the users.
    """

    def __init__(self, train: Interactions, batch_size: int, seed: int):
        self.history_UT, self.count_U = train.history_UT, train.user_counts
        self.active_U = (train.user_counts > 0).nonzero()[:, 0]
        self.rows = max(1, round(batch_size * len(self.active_U) / len(train)))
        self.seed = seed

    def __len__(self) -> int:
        return -(-len(self.active_U) // self.rows)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield the epoch's batches: user (B,), history and target (B, T), items None."""
        generator = epoch_generator(self.seed, epoch, self.active_U.device)
        order = torch.randperm(len(self.active_U), generator=generator, device=self.active_U.device)
        for user_B in self.active_U[order].split(self.rows):
            history_BT = self.history_UT[user_B, : int(self.count_U[user_B].max())]
            yield Batch(user_B, history_BT, target=history_BT)


class ImpressionBatches:
    """Rows are labelled impressions, in a new order each epoch: what a click-through model needs.

    Args:
        train: the training impressions.
        batch_size: impressions a step.
        seed: fixes the order.
    """

    def __init__(self, train: Impressions, batch_size: int, seed: int):
        self.train, self.batch_size, self.seed = train, batch_size, seed

    def __len__(self) -> int:
        return -(-len(self.train) // self.batch_size)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield the epoch's batches: user (B,), fields, target (B,) labels."""
        device = self.train.user.device
        generator = epoch_generator(self.seed, epoch, device)
        order = torch.randperm(len(self.train), generator=generator, device=device)
        for index in order.split(self.batch_size):
            yield self.train.rows(index)


class RatingBatches:
    """Rows are ratings, each once an epoch: what a rating model needs.

    Args:
        train: the training ratings.
        batch_size: ratings a step, on average if ``whole`` is given.
        seed: fixes the order.
        whole: "user" or "item" if all ratings of one must come together, as an auto-encoder's row;
            None if they may come in any order.
    """

    def __init__(self, train: Interactions, batch_size: int, seed: int, whole: str | None = None):
        self.train, self.batch_size, self.seed = train, batch_size, seed
        self.row_E = None
        if whole is not None:
            rows, self.row_E = getattr(train, whole).unique(return_inverse=True)
            self.num_rows = len(rows)
            self.rows = max(1, round(batch_size * self.num_rows / len(train)))

    def __len__(self) -> int:
        if self.row_E is None:
            return -(-len(self.train) // self.batch_size)
        return -(-self.num_rows // self.rows)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield the epoch's batches: user (B,), items (B, 1), target (B,) ratings."""
        device = self.train.user.device
        generator = epoch_generator(self.seed, epoch, device)
        if self.row_E is None:
            order_E = torch.randperm(len(self.train), generator=generator, device=device)
            blocks = order_E.split(self.batch_size)
        else:
            order = torch.randperm(self.num_rows, generator=generator, device=device)
            place_E = order[self.row_E]
            size = torch.bincount(place_E // self.rows).tolist()
            blocks = place_E.argsort(stable=True).split(size)
        for index in blocks:
            yield self.train.rated(index)


class PairBatches:
    """Rows are (user, positive) pairs with negatives: what pairwise and sampled losses need.

    With ``popular=False`` negatives are uniform over the items the user has not taken (a draw that
    hits a training item is drawn again); with ``popular=True`` they follow the training
    popularity, the user's items included, as the log-q correction assumes; only a draw of the row's
    own positive must not count, and has a log-probability of +inf.

    Args:
        train: the training interactions.
        batch_size: pairs a step.
        negatives: negatives a pair.
        popular: draw negatives by popularity and report their log-probabilities.
        seed: fixes order and negatives.
        history: whether batches carry histories, which takes longer to copy than all else.
    """

    def __init__(
        self,
        train: Interactions,
        batch_size: int,
        seed: int,
        *,
        negatives: int,
        popular: bool,
        history: bool = True,
    ):
        self.train, self.batch_size, self.seed = train, batch_size, seed
        self.negatives, self.popular = negatives, popular
        self.history_UT = train.history_UT if history else None
        self.pair_E = (train.user * train.num_items + train.item).sort().values
        self.log_q_N = (train.item_counts / len(train)).log()
        full = train.user_counts >= train.num_items
        if not popular and bool(full.any()):
            raise ValueError(
                f"user index {int(full.nonzero()[0])} has taken all {train.num_items} items: "
                "expected at least one item left to draw as a negative"
            )

    def __len__(self) -> int:
        return -(-len(self.train) // self.batch_size)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield the epoch's batches: user (B,), items (B, 1 + K) with the positive in column 0."""
        train = self.train
        generator = epoch_generator(self.seed, epoch, train.user.device)
        order = torch.randperm(len(train), generator=generator, device=train.user.device)
        for index in order.split(self.batch_size):
            user_B, positive_B = train.user[index], train.item[index]
            shape = (len(index), self.negatives)
            if self.popular:
                draw_BK = self._randint(len(train), shape, generator)
                negative_BK = train.item[draw_BK]
            else:
                negative_BK = self._unseen(user_B, shape, generator)
            items_BK = torch.cat([positive_B[:, None], negative_BK], dim=1)
            log_q_BK = None
            if self.popular:
                log_q_BK = self.log_q_N[items_BK]
                log_q_BK[:, 1:][negative_BK == positive_B[:, None]] = torch.inf
            history_BT = None
            if self.history_UT is not None:  # whole rows: 5 times as fast as [user_B]
                history_BT = self.history_UT.index_select(0, user_B)
            yield Batch(
                user_B,
                history_BT,
                items=items_BK,
                target=torch.zeros_like(user_B),
                log_q=log_q_BK,
            )

    def _unseen(self, user_B: Tensor, shape: tuple[int, int], generator) -> Tensor:
        num_items = self.train.num_items
        draw_X = self._randint(num_items, shape, generator).flatten()
        first_X = (user_B * num_items).repeat_interleave(shape[1])
        again = self._taken(first_X + draw_X).nonzero()[:, 0]
        while len(again):
            draw_X[again] = self._randint(num_items, again.shape, generator)
            again = again[self._taken(first_X[again] + draw_X[again])]
        return draw_X.view(shape)

    def _taken(self, pair_X: Tensor) -> Tensor:
        place_X = torch.searchsorted(self.pair_E, pair_X).clamp(max=len(self.pair_E) - 1)
        return self.pair_E[place_X] == pair_X

    def _randint(self, high: int, shape, generator) -> Tensor:
        return torch.randint(high, shape, generator=generator, device=self.train.user.device)
