"""Q_u, the law that a recommender gives over its catalogue: the object this book is about.

Q_u(i) = exp(s_ui / temperature) / sum_j exp(s_uj / temperature). Losses, regularisers, metrics,
rerankers and plots ask this object for what they need, in nats, and do not know whether it was
built from a matrix of logits or from embeddings whose logits are never all held at once.

Shape letters: B rows (users), N items, D embedding size, C categories, T places of an item table,
E places that hold an item.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from inforec.streaming import catalogue_pass, excluded_mask
from inforec.types import PAD


class ItemDistribution:
    """Q_u(i) = softmax_i(s_ui / temperature) for a batch of users.

    Build it with :meth:`from_logits` or :meth:`from_embeddings`. Every method returns nats and is
    differentiable in what the object was built from.

    Attributes:
        complete: whether the columns are the whole catalogue. Over sampled candidates a softmax
            is not p(i | u): its entropy is at most log K. Regularisers refuse such a law.
        num_items: N, or the number of candidates K.
        temperature: a positive number, or a (B,) tensor with one per row.
    """

    def __init__(self, *, logits_BN, query_BD, item_ND, temperature, exclude_BT, complete):
        if not isinstance(temperature, Tensor):
            if not (math.isfinite(temperature) and temperature > 0):
                raise ValueError(f"temperature={temperature!r}: expected a positive finite number")
        self._logits_BN, self._query_BD, self._item_ND = logits_BN, query_BD, item_ND
        self._exclude_BT = exclude_BT
        self.temperature = temperature
        self.complete = complete
        self.num_items = logits_BN.shape[1] if logits_BN is not None else len(item_ND)
        # What was computed under no_grad carries no gradient, so the two are kept apart.
        self._caches: dict[bool, dict[str, Tensor]] = {True: {}, False: {}}
        self._derived: dict[float, ItemDistribution] = {}

    @classmethod
    def from_logits(
        cls,
        logits_BN: Tensor,
        *,
        temperature: float | Tensor = 1.0,
        exclude_BT: Tensor | None = None,
        complete: bool = True,
    ) -> ItemDistribution:
        """The dense path: from a (B, N) matrix of logits.

        Args:
            logits_BN: (B, N) scores, or (B, K) scores of candidates with ``complete=False``.
            temperature: a positive number or a (B,) tensor.
            exclude_BT: (B, T) int64 items that get probability 0, padded with -1.
            complete: whether the columns are the whole catalogue.

        Raises:
            ValueError: for a number as temperature that is not positive and finite.
        """
        return cls(
            logits_BN=logits_BN,
            query_BD=None,
            item_ND=None,
            temperature=temperature,
            exclude_BT=exclude_BT,
            complete=complete,
        )

    @classmethod
    def from_embeddings(
        cls,
        query_BD: Tensor,
        item_ND: Tensor,
        *,
        temperature: float | Tensor = 1.0,
        exclude_BT: Tensor | None = None,
    ) -> ItemDistribution:
        """The streaming path: s_ui = query_u . item_i, read in blocks, never held as (B, N).

        Args:
            query_BD: (B, D) user vectors.
            item_ND: (N, D) item vectors.
            temperature: a positive number or a (B,) tensor.
            exclude_BT: (B, T) int64 items that get probability 0, padded with -1.

        Raises:
            ValueError: for a number as temperature that is not positive and finite.
        """
        return cls(
            logits_BN=None,
            query_BD=query_BD,
            item_ND=item_ND,
            temperature=temperature,
            exclude_BT=exclude_BT,
            complete=True,
        )

    def with_temperature(self, temperature: float | Tensor) -> ItemDistribution:
        """The law of the same scores at another temperature (it replaces, not multiplies).

        Asked twice for the same number it gives the same object, so that the terms of an objective
        share one pass over the catalogue.
        """
        if isinstance(temperature, Tensor):
            return self._at(temperature)
        if temperature not in self._derived:
            self._derived[temperature] = self._at(temperature)
        return self._derived[temperature]

    def _at(self, temperature: float | Tensor) -> ItemDistribution:
        return ItemDistribution(
            logits_BN=self._logits_BN,
            query_BD=self._query_BD,
            item_ND=self._item_ND,
            temperature=temperature,
            exclude_BT=self._exclude_BT,
            complete=self.complete,
        )

    def without(self, exclude_BT: Tensor) -> ItemDistribution:
        """The law of the same scores over what is left: these items get probability 0.

        Args:
            exclude_BT: (B, T) int64 items, padded with -1, in the place of those excluded so far.
        """
        return ItemDistribution(
            logits_BN=self._logits_BN,
            query_BD=self._query_BD,
            item_ND=self._item_ND,
            temperature=self.temperature,
            exclude_BT=exclude_BT,
            complete=self.complete,
        )

    def rows(self, index: Tensor | slice) -> ItemDistribution:
        """The law of the rows at ``index`` only."""

        def of(rows):
            return rows[index] if isinstance(rows, Tensor) else rows  # a number, or None

        return ItemDistribution(
            logits_BN=of(self._logits_BN),
            query_BD=of(self._query_BD),
            item_ND=self._item_ND,
            temperature=of(self.temperature),
            exclude_BT=of(self._exclude_BT),
            complete=self.complete,
        )

    def plus(self, weight_BC: Tensor, value_NC: Tensor) -> ItemDistribution:
        """The law of the scores s_ui + sum_c weight_uc value_ic; it streams if this one does.

        Args:
            weight_BC: (B, C), added behind the user's vector on the streaming path.
            value_NC: (N, C), added behind the item's.
        """
        settings = {"temperature": self.temperature, "exclude_BT": self._exclude_BT}
        if self._logits_BN is not None:
            logits_BN = self._logits_BN + weight_BC @ value_NC.T
            return self.from_logits(logits_BN, **settings, complete=self.complete)
        query_BX = torch.cat([self._query_BD, weight_BC], dim=1)
        return self.from_embeddings(query_BX, torch.cat([self._item_ND, value_NC], 1), **settings)

    def scores(self, rows: slice) -> Tensor:
        """(R, N) float64 scores of some rows, not divided by the temperature, -inf where excluded.

        On the streaming path this is what is never held for all rows at once.
        """
        if self._logits_BN is not None:
            score_RN = self._logits_BN[rows].double()
        else:
            score_RN = self._query_BD[rows].double() @ self._item_ND.double().T
        if self._exclude_BT is None:
            return score_RN
        return score_RN.masked_fill(excluded_mask(self._exclude_BT[rows], score_RN), -torch.inf)

    @property
    def num_rows(self) -> int:
        """B."""
        return len(self._logits_BN if self._logits_BN is not None else self._query_BD)

    @property
    def dtype(self) -> torch.dtype:
        """That of the scores."""
        return (self._logits_BN if self._logits_BN is not None else self._query_BD).dtype

    def log_prob(self, item: Tensor) -> Tensor:
        """log Q_u(i) in nats for item indices (B,) or (B, T); 0 at the padding -1 of a table."""
        if item.ndim == 1:
            return self.log_prob(item[:, None])[:, 0]
        if self._logits_BN is not None:
            log_prob_BT = self._dense_log_prob().gather(1, item.clamp(min=0))
            return log_prob_BT.masked_fill(item == PAD, 0.0)
        # Only the pairs that are there: a padded table would make a (B, T, D) tensor.
        row_E, place_E = (item != PAD).nonzero(as_tuple=True)
        item_E = item[row_E, place_E]
        query_ED = F.embedding(row_E, self._scaled_query())  # its backward beats that of indexing
        score_E = torch.linalg.vecdot(query_ED, F.embedding(item_E, self._item_ND))
        log_prob_E = score_E - self._statistics()[0][row_E]
        if self._exclude_BT is not None:
            hidden_E = _contained(item, self._exclude_BT)[row_E, place_E]
            log_prob_E = log_prob_E.masked_fill(hidden_E, -torch.inf)
        return torch.zeros_like(item, dtype=log_prob_E.dtype).index_put(
            (row_E, place_E), log_prob_E
        )

    def log_likelihood(self, item_BT: Tensor) -> Tensor:
        """(B,) sum over the row's items of log Q_u(i), nats; -1 is padding.

        On the streaming path from the sum of the items' vectors, sum_i q . k_i = q . sum_i k_i:
        many times as fast as to take the pairs one by one.
        """
        if self._logits_BN is not None:
            return self.log_prob(item_BT).sum(1)
        there_BT = item_BT != PAD
        count_B = there_BT.sum(1)
        first_B = count_B.cumsum(0) - count_B
        vector_BD = F.embedding_bag(item_BT[there_BT], self._item_ND, first_B, mode="sum")
        score_B = torch.linalg.vecdot(self._scaled_query(), vector_BD)
        total_B = score_B - count_B * self._statistics()[0]
        if self._exclude_BT is not None:
            hidden_BT = _contained(item_BT, self._exclude_BT) & there_BT
            total_B = total_B.masked_fill(hidden_BT.any(1), -torch.inf)
        return total_B

    def entropy(self) -> Tensor:
        """(B,) H(Q_u) in nats."""
        return self._statistics()[1]

    def mean(self, value_NC: Tensor) -> Tensor:
        """(B, C) E_Q[v]; with value = p(c | i) this is Q_u over categories.

        On the streaming path this reads the catalogue once and keeps what :meth:`entropy` and
        :meth:`log_prob` need, so asking for the mean first makes the others free.
        """
        if self._logits_BN is not None:
            prob_BN = self._dense_log_prob().exp()
            return prob_BN @ value_NC.to(prob_BN.dtype)
        query_BD = self._scaled_query()
        lse_B, entropy_B, mean_BC = catalogue_pass(
            query_BD, self._item_ND, value_NC.to(query_BD.dtype), self._exclude_BT
        )
        self._cache.setdefault("lse", lse_B)
        self._cache.setdefault("entropy", entropy_B)
        return mean_BC

    def mean_scores(self, *laws: ItemDistribution) -> Tensor:
        """(B, L) E_Q[s / temperature] of the scores and temperatures of L laws on the same items.

        On the streaming path this reads the catalogue once, whatever L: E_Q[q . k_i] = q . E_Q[k].

        Args:
            laws: laws of as many rows and items as this one, built from embeddings if it is and
                from logits if it is. Their excluded items do not matter, only this law's.

        Raises:
            ValueError: if a law differs in rows, items, or in what it was built from.
        """
        for law in laws:
            if self._kind() != law._kind():
                raise ValueError(
                    f"laws: one is from {law._kind()}, this one from {self._kind()}: "
                    "expected the same rows, items and kind"
                )
        if self._logits_BN is not None:
            prob_BN = self._dense_log_prob().exp()
            scores = [law._logits_BN / law._temperature_column() for law in laws]
            # 0 times the score of an excluded item counts as 0, whatever the score.
            return torch.stack(
                [(prob_BN * s_BN.masked_fill(prob_BN == 0, 0.0)).sum(1) for s_BN in scores], 1
            )
        tables = {id(law._item_ND): law._item_ND for law in laws}
        means = self.mean(torch.cat(list(tables.values()), 1)).split(
            [item_ND.shape[1] for item_ND in tables.values()], 1
        )
        mean_of = dict(zip(tables, means, strict=True))
        return torch.stack(
            [torch.linalg.vecdot(law._scaled_query(), mean_of[id(law._item_ND)]) for law in laws], 1
        )

    def same_support(self, other: ItemDistribution) -> bool:
        """Whether the two laws exclude the same items in every row."""
        one_BT, two_BT = self._exclude_BT, other._exclude_BT
        if one_BT is two_BT:
            return True
        if one_BT is None or two_BT is None:
            return bool(((two_BT if one_BT is None else one_BT) == PAD).all())
        one_in_two = (_contained(one_BT, two_BT) | (one_BT == PAD)).all()
        return bool(one_in_two & (_contained(two_BT, one_BT) | (two_BT == PAD)).all())

    def perplexity(self) -> Tensor:
        """(B,) exp(entropy): the effective number of recommended items."""
        return self.entropy().exp()

    def at_perplexity(self, k: float, *, tolerance: float | None = None) -> ItemDistribution:
        """The law at the temperature, one per row, where its perplexity is k: a soft top-k.

        The entropy grows with the temperature (its slope is Var_Q(s) / temperature^3), so a bracket
        of log temperatures finds it: by bisection while it is wide, then by false position, in the
        Illinois variant that halves the value at an end which stays. One differentiable Newton step
        at the solution then carries the gradient of the temperature in the scores (implicit
        function theorem): the entropy of the result is constant, and so has zero gradient.

        Args:
            k: the perplexity wanted, with 1 < k < number of items that are not excluded.
            tolerance: largest error in log perplexity before the Newton step, nats; by default 1e-6
                in float64, and 1e-3 in float32, where rounding can hide more than 1e-4.

        Raises:
            ValueError: if k is out of range, or a row's scores tie so that no temperature gives it.
        """
        available_B = self._available()
        if not (math.isfinite(k) and 1 < k < int(available_B.min())):
            raise ValueError(
                f"k={k!r}: expected a perplexity above 1 and below {int(available_B.min())}, "
                "the smallest number of items a row may get"
            )
        goal = math.log(k)
        with torch.no_grad():
            spread_B = self._score_spread()
            if tolerance is None:
                tolerance = 1e-6 if spread_B.dtype == torch.float64 else 1e-3
            # From 1e-6 to 1e6 times the spread of the scores: colder is an argmax, hotter uniform.
            low_B, high_B = (spread_B * 1e-6).log(), (spread_B * 1e6).log()
            low_error_B = torch.full_like(spread_B, -goal)
            high_error_B = available_B.to(spread_B.dtype).log() - goal
            middle_B, found_B = low_B, torch.zeros_like(spread_B, dtype=torch.bool)
            was_below_B = ~found_B
            for _ in range(50):
                share_B = low_error_B / (low_error_B - high_error_B)
                share_B = torch.where(high_B - low_B > 1.0, 0.5, share_B)
                middle_B = torch.where(found_B, middle_B, low_B + share_B * (high_B - low_B))
                error_B = self.with_temperature(middle_B.exp()).entropy() - goal
                found_B = error_B.abs() <= tolerance / 10  # if rounding lets it
                if bool(found_B.all()):
                    break
                below_B = error_B < 0
                stale_B = torch.where(below_B == was_below_B, 0.5, 1.0)
                low_B = torch.where(below_B, middle_B, low_B)
                high_B = torch.where(below_B, high_B, middle_B)
                low_error_B = torch.where(below_B, error_B, stale_B * low_error_B)
                high_error_B = torch.where(below_B, stale_B * high_error_B, error_B)
                was_below_B = below_B
            if bool((error_B.abs() > tolerance).any()):
                row = int(error_B.abs().argmax())
                raise ValueError(
                    f"k={k!r}: row {row} reaches a perplexity of "
                    f"{math.exp(goal + float(error_B[row])):.6g} at best: expected untied scores"
                )
        with torch.enable_grad():
            slope_at_B = middle_B.requires_grad_()
            entropy_B = self.with_temperature(slope_at_B.exp()).entropy()
            (slope_B,) = torch.autograd.grad(entropy_B.sum(), slope_at_B, retain_graph=True)
        middle_B = slope_at_B.detach()
        return self.with_temperature((middle_B - (entropy_B - goal) / slope_B).exp())

    def _kind(self) -> str:
        if self._logits_BN is not None:
            return f"{tuple(self._logits_BN.shape)} logits"
        return f"embeddings of {len(self._query_BD)} rows and {self.num_items} items"

    @property
    def _cache(self) -> dict[str, Tensor]:
        return self._caches[torch.is_grad_enabled()]

    def _scaled_query(self) -> Tensor:
        return self._query_BD / self._temperature_column()

    def _temperature_column(self) -> float | Tensor:
        per_row = isinstance(self.temperature, Tensor) and self.temperature.ndim == 1
        return self.temperature[:, None] if per_row else self.temperature

    def _excluded(self) -> Tensor | None:
        if "excluded" not in self._cache and self._exclude_BT is not None:
            self._cache["excluded"] = excluded_mask(self._exclude_BT, self._logits_BN)
        return self._cache.get("excluded")

    def _dense_log_prob(self) -> Tensor:
        """(B, N) log Q_u(i), -inf where excluded."""
        if "log_prob" not in self._cache:
            scaled_BN = self._logits_BN / self._temperature_column()
            if self._exclude_BT is not None:
                scaled_BN = scaled_BN.masked_fill(self._excluded(), -torch.inf)
            self._cache["log_prob"] = scaled_BN.log_softmax(1)
        return self._cache["log_prob"]

    def _statistics(self) -> tuple[Tensor | None, Tensor]:
        """lse (streaming path only) and entropy, computed once."""
        if "entropy" not in self._cache:
            if self._logits_BN is not None:
                log_prob_BN = self._dense_log_prob()
                prob_BN = log_prob_BN.exp()
                if self._exclude_BT is not None:
                    log_prob_BN = log_prob_BN.masked_fill(self._excluded(), 0.0)
                self._cache["entropy"] = -(prob_BN * log_prob_BN).sum(1)
            else:
                self._cache["lse"], self._cache["entropy"], _ = catalogue_pass(
                    self._scaled_query(), self._item_ND, None, self._exclude_BT
                )
        return self._cache.get("lse"), self._cache["entropy"]

    def _available(self) -> Tensor:
        """(B,) number of items that are not excluded."""
        if self._exclude_BT is None:
            return torch.full((self.num_rows,), self.num_items)
        ordered_BT = self._exclude_BT.sort(1).values
        fresh_BT = ordered_BT >= 0
        fresh_BT[:, 1:] &= ordered_BT[:, 1:] != ordered_BT[:, :-1]
        return self.num_items - fresh_BT.sum(1)

    def _score_spread(self) -> Tensor:
        """(B,) a scale of each row's scores: their standard deviation, never 0."""
        if self._logits_BN is not None:
            variance_B = self._logits_BN.var(1)
        else:
            # Var_i(q . k_i) = q^T Cov(k) q, with no (B, N) matrix.
            centred_ND = self._item_ND - self._item_ND.mean(0)
            covariance_DD = centred_ND.T @ centred_ND / max(1, len(centred_ND) - 1)
            variance_B = ((self._query_BD @ covariance_DD) * self._query_BD).sum(1)
        return variance_B.clamp(min=torch.finfo(variance_B.dtype).tiny).sqrt()


def _contained(item_BT: Tensor, table_BX: Tensor) -> Tensor:
    """(B, T) bool: whether each item occurs in its row of the table."""
    ordered_BX = table_BX.sort(1).values
    place_BT = torch.searchsorted(ordered_BX, item_BT.contiguous())
    return ordered_BX.gather(1, place_BT.clamp(max=table_BX.shape[1] - 1)) == item_BT
