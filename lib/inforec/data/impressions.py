"""Labelled rows in, :class:`Clicks` out: what click-through models are trained on.

A folder of one's own holds impressions.parquet, or a given split as train.parquet, [valid.parquet]
and test.parquet. Columns: ``user``, ``label`` (0 or 1), at most one clock (``position`` in the
user's history, or ``timestamp``), and any further ones, each a field: integers, strings, or lists
of them. The user is a field as well.

Shape letters: E rows, T most values of a field or longest history, P liked rows.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from inforec.checks import require_choice, require_number
from inforec.data import splits
from inforec.data.dataset import _about, _clock, _code, _ids, _read, _reject
from inforec.data.fetch import fetch
from inforec.types import PAD, Impressions

SPLITS = ("random", "time_ordered", "given")
_PARTS = ("train", "valid", "test")
_CLOCKS = ("position", "timestamp")


@dataclass(frozen=True, eq=False)
class Clicks:
    """Labelled rows in three disjoint sets.

    Args:
        name: of the data set.
        train, valid, test: the three sets.
        vocabulary: by field the values that training knows, in the order of the numbers from 1.
        split, seed, history: what :func:`load_impressions` was asked for.
        notes: what the loader did, in words.
    """

    name: str
    train: Impressions
    valid: Impressions
    test: Impressions
    vocabulary: Mapping[str, tuple]
    split: str
    seed: int
    history: int
    notes: tuple[str, ...] = field(default_factory=tuple)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the fields, histories and labels of the three sets, as hex."""
        digest = hashlib.sha256(repr(sorted(self.train.sizes.items())).encode())
        for part in (self.train, self.valid, self.test):
            columns = {**part.fields, " user": part.user, " label": part.label.long()}
            if part.history is not None:
                columns[" history"] = part.history
            for name in sorted(columns):
                digest.update(f";{name}:{tuple(columns[name].shape)}:".encode())
                digest.update(columns[name].cpu().numpy().astype("<i8").tobytes())
        return digest.hexdigest()

    def to(self, device) -> Clicks:
        """The same data with every tensor on the device."""
        parts = {name: getattr(self, name).to(device) for name in _PARTS}
        return replace(self, **parts)


def load_impressions(
    name_or_path: str | os.PathLike, *, split: str = "random", seed: int = 2026, history: int = 0
) -> Clicks:
    """Reads labelled rows by name (a key of ``IMPRESSIONS``) or from a folder of one's own.

    The values of a field are numbered from 1 in ascending order, as far as training rows have
    them; 0 stands for all others, and for a missing value.

    Args:
        name_or_path: "ml-1m-ctr": MovieLens-1M with the seven fields of RecBole's benchmark, the
            ratings 1 and 2 as label 0, 4 and 5 as 1, 3 dropped; "ml-1m-ctr-time": an eighth field,
            how many films the user had rated before, as a power of two (its timestamps are not
            complete, its order is); "ctr-frappe": app usage in context; or a folder.
        split: "random": 80/10/10 of all rows, whoever they belong to, as RecBole's; rows of the
            same user from before and after a test row are then in training. "time_ordered": the
            last 10 % of each user's rows are test, the 10 % before validation (rounded, at least
            one each; users of one or two rows train only); other users' later rows are still in
            training. "given": the files' own (without valid.parquet, a random 10 % of train).
        seed: of the split. Other seeds of PCG64, and RecBole's own generator, give other rows.
        history: how many liked items each row carries: the latest among the user's earlier training
            rows with label 1, so that no row tells its own label or a held-out one.

    Raises:
        ValueError: a bad argument, or bad data, with file, row, column and value.
        ConnectionError: the data set is in no source that answers.
    """
    require_choice("split", split, SPLITS)
    require_number("seed", seed, at_least=0, integer=True)
    require_number("history", history, at_least=0, integer=True)
    name, tables = _tables(name_or_path)
    rows = _joined(tables)
    user, _ = _code([_ids(path, table, "user") for path, table in tables.items()])
    label = np.concatenate([_labels(path, table) for path, table in tables.items()])
    given = np.repeat([_part(path) for path in tables], [len(t) for t in tables.values()])
    clocks = [column for column in _CLOCKS if column in rows.column_names]
    order = None
    if clocks:
        order = np.concatenate([_clock(p, table, clocks[0]) for p, table in tables.items()])
    where = " and ".join(map(str, tables))
    if order is None and (history or split == "time_ordered"):
        raise ValueError(
            f"{where}: split={split!r} with history={history} needs a column 'position' or "
            "'timestamp'"
        )
    if split == "given" and (given < 0).any():
        raise ValueError(f"{where}: split='given' needs train.parquet and test.parquet")
    part, notes = given, []
    if split == "random":
        part = splits.shuffled(len(user), seed)
    elif split == "time_ordered":
        part = splits.time_ordered(user, order)
    elif not (given == splits.VALID).any():
        part = splits.hold_out_rows(given, seed)
        notes.append("no valid.parquet: a random 10 % of the training rows are for validation")
    for which, what in enumerate(_PARTS):
        if not (part == which).any():
            raise ValueError(f"{where}: split {split!r} leaves no row for {what}")

    train = part == splits.TRAIN
    numbers, vocabulary = {}, {}
    for column in rows.column_names:
        if column != "label" and column not in _CLOCKS:
            numbers[column], vocabulary[column] = _numbered(where, column, rows[column], train)
            unseen = ((numbers[column] == 0).reshape(len(part), -1).any(1) & ~train).sum()
            if unseen:
                notes.append(f"{column}: {unseen:,} held-out rows with a value unseen in training")
    past = None
    if history:
        if numbers.get("item") is None or numbers["item"].ndim != 1:
            raise ValueError(f"{where}: history={history} needs a column 'item' of single values")
        past = histories(user, order, numbers["item"], train & (label == 1), history)
    sizes = {column: len(values) + 1 for column, values in vocabulary.items()}

    def tensors(which):
        chosen = np.flatnonzero(part == which)
        return Impressions(
            torch.from_numpy(user[chosen]),
            {column: torch.from_numpy(number[chosen]) for column, number in numbers.items()},
            torch.from_numpy(label[chosen]),
            sizes,
            None if past is None else torch.from_numpy(past[chosen]),
        )

    sets = [tensors(which) for which in (splits.TRAIN, splits.VALID, splits.TEST)]
    return Clicks(name, *sets, vocabulary, split, int(seed), int(history), tuple(notes))


def histories(user_E, order_E, item_E, liked_E, length: int) -> np.ndarray:
    """(E, T) the last ``length`` items of the user's liked rows before each row, padded in front.

    Rows of equal order stand in the order in which they come.
    """
    place_E = np.lexsort((order_E, user_E))
    user_E, liked_E = user_E[place_E], liked_E[place_E]
    before_E = np.cumsum(liked_E) - liked_E  # liked rows before, of all users so far
    first_E = np.ones(len(user_E), bool)
    first_E[1:] = user_E[1:] != user_E[:-1]
    start_E = before_E[first_E][np.cumsum(first_E) - 1]
    liked_P = np.append(item_E[place_E][liked_E], PAD)  # never empty
    at_ET = before_E[:, None] - length + np.arange(length)
    past_ET = np.empty_like(at_ET)
    past_ET[place_E] = np.where(at_ET >= start_E[:, None], liked_P[np.maximum(at_ET, 0)], PAD)
    return past_ET


# ---- files --------------------------------------------------------------------------------------


def _movielens(*, time: bool) -> dict[Path, pa.Table]:
    """MovieLens-1M as labelled rows, by user and item."""
    folder = fetch("ml-1m")
    _about(folder)
    rows = pq.read_table(folder / "interactions.parquet")
    rows = rows.sort_by([("user", "ascending"), ("item", "ascending")])
    clock = "position" if "position" in rows.column_names else "timestamp"
    user, order = rows["user"].to_numpy(), rows[clock].to_numpy()
    position = splits.rank(user, order)
    rating = rows["rating"].to_numpy()
    users = pq.read_table(folder / "users.parquet")
    users = users.take(pc.index_in(rows["user"], value_set=users["user"].combine_chunks()))
    items = pq.read_table(folder / "items.parquet")
    items = items.take(pc.index_in(rows["item"], value_set=items["item"].combine_chunks()))
    columns = {
        "user": rows["user"],
        "item": rows["item"],
        **{name: users[name] for name in ("gender", "age", "occupation")},
        "year": items["year"],
        "genre": items["categories"],
        "position": pa.array(position),
        "label": pa.array((rating > 3).astype(np.int64)),
    }
    if time:
        columns["rated_before"] = pa.array(np.frexp(position + 1)[1].astype(np.int64) - 1)
    table = pa.table(columns).filter(pa.array(rating != 3))
    return {folder / "interactions.parquet": table}


def _own(folder: Path) -> dict[Path, pa.Table]:
    _about(folder)
    whole = folder / "impressions.parquet"
    paths = [whole] if whole.is_file() else []
    paths += [folder / f"{name}.parquet" for name in _PARTS]
    paths = [path for path in paths if path.is_file()]
    names = {path.stem for path in paths}
    if names != {"impressions"} and not {"train", "test"} <= names <= set(_PARTS):
        raise ValueError(
            f"{folder} holds {', '.join(sorted(names)) or 'no labelled rows'}; expected "
            "impressions.parquet, or train.parquet, test.parquet and perhaps valid.parquet"
        )
    return {path: _read(path, ("user", "label")) for path in paths}


IMPRESSIONS: dict[str, Callable[[], dict[Path, pa.Table]]] = {
    "ml-1m-ctr": lambda: _movielens(time=False),
    "ml-1m-ctr-time": lambda: _movielens(time=True),
    "ctr-frappe": lambda: _own(fetch("ctr-frappe")),
}


def _tables(name_or_path) -> tuple[str, dict[Path, pa.Table]]:
    text = os.fspath(name_or_path)
    if isinstance(name_or_path, str) and text in IMPRESSIONS:
        return text, IMPRESSIONS[text]()
    if Path(text).is_dir():
        return Path(text).resolve().name, _own(Path(text))
    require_choice("name_or_path", text, IMPRESSIONS)
    raise AssertionError


def _part(path: Path) -> int:
    return _PARTS.index(path.stem) if path.stem in _PARTS else -1


def _joined(tables: Mapping[Path, pa.Table]) -> pa.Table:
    """One table of all files, which must have the same columns of the same types."""
    first, *others = tables
    for path in others:
        for name in sorted({*tables[first].column_names, *tables[path].column_names}):
            kinds = [
                str(tables[p][name].type) if name in tables[p].column_names else "not there"
                for p in (first, path)
            ]
            if kinds[0] != kinds[1]:
                raise ValueError(
                    f"{path}: column '{name}' is {kinds[1]}, but {kinds[0]} in {first.name}; "
                    "expected the same in every file"
                )
    names = tables[first].column_names
    return pa.concat_tables([table.select(names) for table in tables.values()])


def _labels(path: Path, table: pa.Table) -> np.ndarray:
    values = table["label"]
    if not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type)):
        if not pa.types.is_boolean(values.type):
            raise ValueError(f"{path}: column 'label' is {values.type}; expected 0 and 1")
    numbers = values.cast(pa.float32(), safe=False)
    good = pc.fill_null(pc.or_(pc.equal(numbers, 0), pc.equal(numbers, 1)), False)
    _reject(path, "label", values, pc.invert(good), "0 or 1")
    return numbers.to_numpy()


def _numbered(where: str, name: str, values: pa.ChunkedArray, train: np.ndarray):
    """(E,) or (E, T) numbers of a column's values, and the vocabulary in their order."""
    values = values.combine_chunks()
    several = pa.types.is_list(values.type) or pa.types.is_large_list(values.type)
    flat = pc.list_flatten(values) if several else values
    row = pc.list_parent_indices(values).to_numpy() if several else np.arange(len(values))
    if pa.types.is_dictionary(flat.type):
        flat = flat.cast(flat.type.value_type)
    kind = flat.type
    known = (pa.types.is_integer, pa.types.is_string, pa.types.is_large_string, pa.types.is_boolean)
    if not any(fits(kind) for fits in known):
        raise ValueError(
            f"{where}: column '{name}' is {values.type}; expected integers, strings or lists of "
            "them (cut other numbers into bins first)"
        )
    if pa.types.is_boolean(kind):
        flat = flat.cast(pa.int8())
    vocabulary = pc.drop_null(pc.unique(flat.filter(pa.array(train[row]))))
    vocabulary = vocabulary.take(pc.sort_indices(vocabulary))
    number = pc.fill_null(pc.index_in(flat, value_set=vocabulary), -1).to_numpy() + np.int64(1)
    if several:
        count = np.bincount(row, minlength=len(values))
        table = np.full((len(values), max(1, int(count.max(initial=0)))), PAD)
        table[row, np.arange(len(row)) - (np.cumsum(count) - count)[row]] = number
        number = table
    return number, tuple(vocabulary.to_pylist())
