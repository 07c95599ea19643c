"""Every rating of a data set in, :class:`Ratings` out: what rating models are trained on.

Shape letters: E ratings, U users, N items.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from inforec.checks import require_number
from inforec.data import splits
from inforec.data.dataset import _about, _locate, _read_interactions
from inforec.types import Interactions

_PARTS = ("train", "valid", "test")


@dataclass(frozen=True, eq=False)
class Ratings:
    """Ratings in three disjoint sets.

    Args:
        name: of the data set.
        train, valid, test: the three sets, with user, item and rating.
        user_ids, item_ids: the original ids, in the order of the numbers; those that training never
            saw are among them.
        seed: what :func:`load_ratings` was asked for.
    """

    name: str
    train: Interactions
    valid: Interactions
    test: Interactions
    user_ids: tuple
    item_ids: tuple
    seed: int

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the users, items and ratings of the three sets, as hex."""
        digest = hashlib.sha256(f"{len(self.user_ids)},{len(self.item_ids)}".encode())
        for part in (self.train, self.valid, self.test):
            digest.update(f";{len(part)}:".encode())
            for tensor, kind in ((part.user, "<i8"), (part.item, "<i8"), (part.rating, "<f4")):
                digest.update(tensor.cpu().numpy().astype(kind).tobytes())
        return digest.hexdigest()

    def to(self, device) -> Ratings:
        """The same data with every tensor on the device."""
        return replace(self, **{name: getattr(self, name).to(device) for name in _PARTS})


def load_ratings(name_or_path: str | os.PathLike, *, seed: int = 2026) -> Ratings:
    """Reads all ratings of a data set by name or from a data-set folder, and splits them.

    Nothing is dropped. Of all ratings, whoever gave them, 10 % are test; of the others 10 % are
    validation (each rounded down): the protocol of Sedhain et al. (2015), who repeat it with five
    splits. So a held-out user or item may be one that training never saw.

    Args:
        name_or_path: as in :func:`inforec.data.load`; the folder must have interactions.parquet.
        seed: of the split.

    Raises:
        ValueError: a bad argument, or bad data, with file, row, column and value.
        ConnectionError: the data set is in no source that answers.
    """
    require_number("seed", seed, at_least=0, integer=True)
    folder, name = _locate(name_or_path)
    about = _about(folder)
    rows = _read_interactions(folder)
    if rows.rating is None or not (rows.part == -1).all():
        raise ValueError(f"{folder}: expected one file interactions.parquet with a column 'rating'")
    rows = rows.take(np.lexsort((rows.item, rows.user)))
    part = splits.tenth_of_rest(len(rows.user), seed)
    splits.assert_disjoint(rows.user, rows.item, part)
    for which, label in enumerate(_PARTS):
        if not (part == which).any():
            raise ValueError(f"{folder}: {len(part)} ratings leave none for {label}")

    def tensors(which):
        chosen = part == which
        return Interactions(
            torch.from_numpy(rows.user[chosen]),
            torch.from_numpy(rows.item[chosen]),
            len(rows.user_values),
            len(rows.item_values),
            rating=torch.from_numpy(rows.rating[chosen]),
        )

    return Ratings(
        name or about.get("name") or folder.resolve().name,
        *[tensors(which) for which in (splits.TRAIN, splits.VALID, splits.TEST)],
        tuple(rows.user_values.to_pylist()),
        tuple(rows.item_values.to_pylist()),
        int(seed),
    )
