"""Data-set folders in, :class:`Dataset` out.

Shape letters: U users, N items, C categories, E interactions, M triples.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor

from inforec.checks import require_choice, require_number
from inforec.data import prepare, splits
from inforec.data.catalog import CATALOG, find
from inforec.data.fetch import fetch
from inforec.types import Interactions

UNKNOWN = "unknown"  # the category of an item that has none, where others have
STRATA = ("head", "middle", "tail")
_PARTS = ("train", "valid", "test")
_LARGEST = 2**63 - 1  # of int64
_PER_UNIT = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}  # nanoseconds


@dataclass(frozen=True, eq=False)
class Knowledge:
    """A knowledge graph around the items.

    Args:
        head, relation, tail: (M,) int64 each, numbers of entities and relations.
        item_entity: (N,) int64, the entity of each item, -1 where there is none.
        entity_names: what each entity is called in the files.
        relation_names: what each relation is called in the files.
    """

    head: Tensor
    relation: Tensor
    tail: Tensor
    item_entity: Tensor
    entity_names: tuple[str, ...]
    relation_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.head)

    @property
    def num_entities(self) -> int:
        return len(self.entity_names)

    @property
    def num_relations(self) -> int:
        return len(self.relation_names)

    def to(self, device) -> Knowledge:
        return replace(
            self,
            head=self.head.to(device),
            relation=self.relation.to(device),
            tail=self.tail.to(device),
            item_entity=self.item_entity.to(device),
        )


@dataclass(frozen=True, eq=False)
class Dataset:
    """Interactions in three disjoint sets, and what is known about items and users.

    Args:
        name: of the data set.
        num_users: how many users there are, U.
        num_items: how many items there are, N.
        train, valid, test: the three sets, with user, item and, where known, rating and time.
        category_NC: (N, C) float32, p(c|i): an item's mass split evenly over its categories.
        category_names: the C names.
        category_kind: what the categories are: "genres", "categories", "popularity strata" ...
        user_ids, item_ids: the original ids, in the order of the numbers.
        item_titles: one string an item, or None.
        item_fields, user_fields: further columns of items.parquet and users.parquet, by name.
        knowledge: the knowledge graph, or None.
        clock: what ``time`` is: "timestamp" (whole seconds, or nanoseconds since 1970 where the
            files hold dates), "position" (in the user's history) or None.
        split, min_rating, min_interactions, seed: what :func:`load` was asked for.
        description, licence, source: from dataset.json.
        notes: what the loader dropped or made up, in words.
    """

    name: str
    num_users: int
    num_items: int
    train: Interactions
    valid: Interactions
    test: Interactions
    category_NC: Tensor | None
    category_names: tuple[str, ...] | None
    category_kind: str
    user_ids: tuple
    item_ids: tuple
    item_titles: tuple[str, ...] | None
    item_fields: Mapping[str, tuple]
    user_fields: Mapping[str, tuple]
    knowledge: Knowledge | None
    clock: str | None
    split: str
    min_rating: float
    min_interactions: int
    seed: int
    description: str = ""
    licence: str = ""
    source: str = ""
    notes: tuple[str, ...] = field(default_factory=tuple)

    @cached_property
    def interest_UC(self) -> Tensor:
        """(U, C) float32, P_u: the mean of the category rows of the user's training items."""
        if self.category_NC is None:
            raise ValueError(f"{self.name} has no categories, so there is no interest over them")
        total_UC = self.category_NC.new_zeros(self.num_users, self.category_NC.shape[1])
        total_UC.index_add_(0, self.train.user, self.category_NC[self.train.item])
        return total_UC / self.train.user_counts[:, None]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the users and items of the three sets and the categories, as hex."""
        digest = hashlib.sha256(f"{self.num_users},{self.num_items}".encode())
        for part in (self.train, self.valid, self.test):
            digest.update(f";{len(part)}:".encode())
            for tensor in (part.user, part.item):
                digest.update(tensor.cpu().numpy().astype("<i8").tobytes())
        if self.category_NC is not None:
            digest.update(repr((self.category_names, self.category_NC.shape)).encode())
            digest.update(self.category_NC.cpu().numpy().astype("<f4").tobytes())
        return digest.hexdigest()

    def to(self, device) -> Dataset:
        """The same data with every tensor on the device."""
        return replace(
            self,
            train=self.train.to(device),
            valid=self.valid.to(device),
            test=self.test.to(device),
            category_NC=None if self.category_NC is None else self.category_NC.to(device),
            knowledge=None if self.knowledge is None else self.knowledge.to(device),
        )


def load(
    name_or_path: str | os.PathLike,
    *,
    split: str = "random",
    min_rating: float = 4.0,
    min_interactions: int = 5,
    seed: int = 2026,
) -> Dataset:
    """Reads a data set by name (fetching it if need be) or a data-set folder by path.

    What happens, in this order: ratings under ``min_rating`` are dropped; users with fewer than
    ``min_interactions`` remaining ones are dropped, once; the rest is split; users without a
    training item are dropped (``notes`` says how many); what remains is numbered from 0 in the
    order of the original ids, items without any interaction left out. The answer does not depend
    on the order of the rows in the files.

    Args:
        name_or_path: a name of the catalogue, or the path of a folder. A folder that has the name
            of a data set needs ``./`` in front.
        split: "random" (within each user 80/10/10), "leave_one_out" (the last item of each user is
            test, the last but one validation), "temporal" (first 80 % of all interactions, then 10,
            then 10) or "given" (the folder's own files; where it has no valid.parquet, 10 % of each
            user's training rows). A folder with a given split can be split anew by the others.
        min_rating: what counts as a positive; ignored where there are no ratings.
        min_interactions: not applied to a given split, which is taken as it is.
        seed: of the split.

    Raises:
        ValueError: a bad argument, or bad data, with file, row, column and value.
        ConnectionError: the data set is in no source that answers.
    """
    require_choice("split", split, splits.NAMES)
    require_number("min_rating", min_rating)
    require_number("min_interactions", min_interactions, at_least=1, integer=True)
    require_number("seed", seed, at_least=0, integer=True)
    folder, name = _locate(name_or_path)
    about = _about(folder)
    rows = _read_interactions(folder)
    items = _read_side(folder, "items", "item", rows)
    users = _read_side(folder, "users", "user", rows)

    notes = []
    keep = np.ones(len(rows.user), bool)
    if rows.rating is not None:
        keep &= rows.rating >= min_rating
    if split != "given":
        counts = np.bincount(rows.user[keep], minlength=len(rows.user_values))
        if few := int((counts < min_interactions).sum()):
            notes.append(f"{few:,} users with fewer than {min_interactions} interactions dropped")
        keep &= counts[rows.user] >= min_interactions
    if not keep.any():
        raise ValueError(
            f"{folder}: min_rating {min_rating} and min_interactions {min_interactions} keep none "
            f"of the {len(rows.user):,} interactions"
        )
    rows = rows.take(np.flatnonzero(keep))
    rows = rows.take(np.lexsort((rows.item, rows.user)))
    part = _split(rows, split, seed, folder)

    counts = np.bincount(rows.user[part == splits.TRAIN], minlength=len(rows.user_values))
    keep = counts[rows.user] > 0
    if not keep.all():
        gone = len(np.unique(rows.user[~keep]))
        notes.append(f"{gone:,} users without a training item dropped")
        rows, part = rows.take(np.flatnonzero(keep)), part[keep]
    for which, label in enumerate(_PARTS):
        if not (part == which).any():
            raise ValueError(f"{folder}: split {split!r} leaves no interaction for {label}")

    user_codes, user = np.unique(rows.user, return_inverse=True)
    item_codes, item = np.unique(rows.item, return_inverse=True)
    splits.assert_disjoint(user, item, part)
    num_users, num_items = len(user_codes), len(item_codes)

    def tensors(which):
        chosen = part == which
        return Interactions(
            torch.from_numpy(user[chosen]),
            torch.from_numpy(item[chosen]),
            num_users,
            num_items,
            rating=None if rows.rating is None else torch.from_numpy(rows.rating[chosen]),
            time=None if rows.time is None else torch.from_numpy(rows.time[chosen]),
        )

    sets = [tensors(which) for which in (splits.TRAIN, splits.VALID, splits.TEST)]
    user_ids = rows.user_values.take(pa.array(user_codes))
    item_ids = rows.item_values.take(pa.array(item_codes))
    items = None if items is None else _rows_of(items, "item", item_ids)
    users = None if users is None else _rows_of(users, "user", user_ids)
    category_NC, names, kind = _categories(items, about, notes)
    if category_NC is None:
        category_NC, names, kind = strata(sets[0].item_counts), STRATA, "popularity strata"
        notes.append("no categories: popularity strata stand in for them")
    return Dataset(
        name=name or about.get("name") or folder.resolve().name,
        num_users=num_users,
        num_items=num_items,
        train=sets[0],
        valid=sets[1],
        test=sets[2],
        category_NC=category_NC,
        category_names=names,
        category_kind=kind,
        user_ids=tuple(user_ids.to_pylist()),
        item_ids=tuple(item_ids.to_pylist()),
        item_titles=_titles(items),
        item_fields=_fields(items, ("item", "title", "categories")),
        user_fields=_fields(users, ("user",)),
        knowledge=_read_knowledge(folder, item_ids),
        clock=rows.clock,
        split=split,
        min_rating=float(min_rating),
        min_interactions=int(min_interactions),
        seed=int(seed),
        description=about.get("description", ""),
        licence=about.get("licence", ""),
        source=about.get("source", ""),
        notes=tuple(notes),
    )


def strata(count_N: Tensor) -> Tensor:
    """(N, 3) float32, one-hot: head, middle or tail by training counts.

    Head are the most popular items that gather the first 20 % of the interactions, tail the least
    popular that gather the last 20 % and all items without any, middle the rest (the H, M and T of
    Abdollahpouri et al. 2021). Equal counts are ordered by item number.
    """
    order_N = torch.argsort(count_N, descending=True, stable=True)
    count_N = count_N[order_N]
    before_N = count_N.cumsum(0) - count_N
    after_N = count_N.sum() - before_N - count_N
    total = int(count_N.sum())
    # An item is counted where its first interaction falls; 5 * x < total is x < 20 % in integers.
    head_N = 5 * before_N < total
    tail_N = (5 * after_N < total) & ~head_N
    stratum_N = torch.where(head_N, 0, torch.where(tail_N, 2, 1))
    category_NC = torch.zeros(len(count_N), 3)
    category_NC[order_N, stratum_N] = 1.0
    return category_NC


# ---- the folder ---------------------------------------------------------------------------------


def _locate(name_or_path) -> tuple[Path, str | None]:
    """The folder, and the name if it is one of the catalogue."""
    text = os.fspath(name_or_path)
    if text not in CATALOG or not isinstance(name_or_path, str):
        if Path(text).is_dir():
            return Path(text), None
        if not isinstance(name_or_path, str) or Path(text).name != text or Path(text).exists():
            raise ValueError(f"{text!r} is not a folder; expected a data-set folder or a name")
    return fetch(find(text).name), text


def _about(folder: Path) -> dict:
    """dataset.json, if there is one; the files it lists must be unaltered."""
    path = folder / "dataset.json"
    if not path.is_file():
        return {}
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(about, dict):
        raise ValueError(f"{path}: expected a JSON object, found {type(about).__name__}")
    for key in ("name", "description", "licence", "source", "category_kind"):
        if not isinstance(about.get(key, ""), str):
            raise ValueError(f"{path}: {key} is {about[key]!r}; expected a string")
    if not isinstance(about.get("files", {}), dict):
        raise ValueError(f"{path}: files is {about['files']!r}; expected file names with SHA-256")
    for name, expected in about.get("files", {}).items():
        if not (folder / name).is_file():
            raise ValueError(f"{folder / name}: the file is missing, but dataset.json lists it")
        if prepare.sha256(folder / name) != expected:
            raise ValueError(
                f"{folder / name}: the file is not the one that dataset.json lists (its SHA-256 "
                "differs); delete the folder and fetch the data set again"
            )
    return about


def _read(path: Path, required: tuple[str, ...]) -> pa.Table:
    if not path.is_file():
        raise ValueError(f"{path}: the file is missing")
    try:
        table = pq.read_table(path, partitioning=None)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path}: not a readable Parquet file: {error}") from error
    for name in required:
        if name not in table.column_names:
            raise ValueError(
                f"{path}: column '{name}' is missing; the columns are "
                + ", ".join(table.column_names)
            )
    return table


def _bad(path: Path, row: int, column: str, value, expected: str) -> ValueError:
    return ValueError(
        f"{path}, row {row} (rows count from 0), column '{column}': {value!r}; expected {expected}"
    )


def _first_row(mask) -> int | None:
    """The first row where the Arrow mask is true, or None."""
    row = pc.index(mask, pa.scalar(True)).as_py()
    return None if row < 0 else row


def _reject(path: Path, column: str, values, mask, expected: str) -> None:
    row = _first_row(mask)
    if row is not None:
        raise _bad(path, row, column, values[row].as_py(), expected)


def _reject_at(path: Path, column: str, values: np.ndarray, mask, expected: str) -> None:
    rows = np.flatnonzero(mask)
    if len(rows):
        raise _bad(path, rows[0], column, values[rows[0]].item(), expected)


def _ids(path: Path, table: pa.Table, column: str) -> pa.ChunkedArray:
    """A column of ids as int64 or string, without nulls and negative numbers."""
    values = table[column]
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    expected = "an integer from 0 to 2**63 - 1 or a string"
    _reject(path, column, values, pc.is_null(values, nan_is_null=True), expected)
    if pa.types.is_integer(values.type):
        # Arrow compares uint64 with a signed number in int64, which large ids do not fit.
        if pa.types.is_uint64(values.type):
            bad = pc.greater(values, pa.scalar(_LARGEST, pa.uint64()))
        else:
            bad = pc.less(values, 0)
        _reject(path, column, values, bad, expected)
        return values.cast(pa.int64())
    if pa.types.is_floating(values.type):
        _reject(path, column, values, pc.invert(pc.is_finite(values)), expected)
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        _reject(path, column, values, pc.equal(values, ""), "an id that is not empty")
        return values.cast(pa.string())
    raise ValueError(f"{path}: column '{column}' is {values.type}; expected integers or strings")


def _ratings(path: Path, table: pa.Table) -> np.ndarray | None:
    """The ratings as float32: None if there are none; nulls are an error."""
    values = _numbers(path, table, "rating", "a finite number >= 0")
    if values is None:
        return None
    with np.errstate(over="ignore"):
        ratings = values.astype(np.float32)
    _reject_at(path, "rating", values, ~np.isfinite(ratings), "a number that float32 can hold")
    return ratings


def _clock(path: Path, table: pa.Table, column: str) -> np.ndarray | None:
    """Timestamps or positions as int64: None if there are none; nulls are an error."""
    if column == "timestamp" and column in table.column_names:
        if pa.types.is_timestamp(table[column].type):
            return _dates(path, table[column])
    expected = "a whole number from 0 to 2**63 - 1"
    values = _numbers(path, table, column, expected)
    if values is None:
        return None
    bad = values > _LARGEST if values.dtype.kind == "u" else values >= 2.0**63
    if values.dtype.kind == "f":
        bad |= values != np.floor(values)
    _reject_at(path, column, values, bad, expected)
    return values.astype(np.int64)


def _dates(path: Path, values: pa.ChunkedArray) -> np.ndarray:
    """Dates as nanoseconds since 1970, so that no unit of Arrow loses the order."""
    _reject(path, "timestamp", values, pc.is_null(values), "a date")
    per_unit = _PER_UNIT[values.type.unit]
    ticks = values.cast(pa.int64()).to_numpy()
    at = np.flatnonzero((ticks < 0) | (ticks > _LARGEST // per_unit))
    if len(at):
        # As text: Python's own dates hold neither nanoseconds nor years past 9999.
        date = values[at[0]].cast(pa.timestamp(values.type.unit)).cast(pa.string()).as_py()
        raise _bad(path, at[0], "timestamp", date, "a date from 1970-01-01 to 2262-04-11")
    return ticks * per_unit


def _numbers(path: Path, table: pa.Table, column: str, expected: str) -> np.ndarray | None:
    """An optional column of finite numbers >= 0, as it is stored: None if it is absent."""
    if column not in table.column_names:
        return None
    values = table[column]
    if not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type)):
        raise ValueError(f"{path}: column '{column}' is {values.type}; expected numbers")
    _reject(path, column, values, pc.is_null(values, nan_is_null=True), expected)
    numbers = values.to_numpy()
    _reject_at(path, column, numbers, ~np.isfinite(numbers) | (numbers < 0), expected)
    return numbers


@dataclass
class _Rows:
    """All interactions of a folder: users and items as codes into the sorted original ids."""

    user: np.ndarray
    item: np.ndarray
    part: np.ndarray  # 0, 1, 2: which file of a given split
    row: np.ndarray  # the row in that file
    rating: np.ndarray | None
    time: np.ndarray | None
    clock: str | None
    user_values: pa.Array
    item_values: pa.Array
    paths: dict[int, Path]

    def take(self, rows: np.ndarray) -> _Rows:
        def of(values):
            return None if values is None else values[rows]

        return replace(
            self,
            user=of(self.user),
            item=of(self.item),
            part=of(self.part),
            row=of(self.row),
            rating=of(self.rating),
            time=of(self.time),
        )


def _read_interactions(folder: Path) -> _Rows:
    whole = folder / "interactions.parquet"
    given = {
        which: folder / f"{name}.parquet"
        for which, name in enumerate(_PARTS)
        if name != "valid" or (folder / "valid.parquet").is_file()
    }
    for path in given.values():
        if whole.is_file() and path.is_file():
            raise ValueError(
                f"{folder}: {whole.name} and {path.name} are both there; expected one or the other"
            )
    if whole.is_file():
        paths = {-1: whole}
    elif given[0].is_file() or given[2].is_file():
        paths = given
    else:
        raise ValueError(
            f"{folder}: neither interactions.parquet nor train.parquet and test.parquet is there"
        )
    columns: dict[str, list] = {name: [] for name in ("user", "item", "part", "row")}
    optional: dict[str, list] = {name: [] for name in ("rating", "timestamp", "position")}
    tables = {path: _read(path, ("user", "item")) for path in paths.values()}
    for path, table in tables.items():
        if not len(table):
            raise ValueError(f"{path}: the file has no rows")
    _require_same_columns(tables, tuple(optional))
    for which, path in paths.items():
        table = tables[path]
        if "label" in table.column_names:
            raise ValueError(
                f"{path}: column 'label' makes these labelled rows; expected interactions "
                "(inforec.data.load_impressions reads labelled rows)"
            )
        for name in ("user", "item"):
            values = _ids(path, table, name)
            if columns[name] and columns[name][0].type != values.type:
                raise ValueError(
                    f"{path}: column '{name}' is {values.type}, but {columns[name][0].type} in "
                    f"{paths[next(iter(paths))].name}; expected the same type in both"
                )
            columns[name].append(values)
        columns["part"].append(np.full(len(table), which))
        columns["row"].append(np.arange(len(table)))
        optional["rating"].append(_ratings(path, table))
        # Some rows may lack a timestamp where each has a position.
        partial = "position" in table.column_names and "timestamp" in table.column_names
        if partial and table["timestamp"].null_count:
            optional["timestamp"].append(None)
        else:
            optional["timestamp"].append(_clock(path, table, "timestamp"))
        optional["position"].append(_clock(path, table, "position"))

    def joined(name):
        parts = optional[name]
        return None if any(part is None for part in parts) else np.concatenate(parts)

    time, clock = joined("timestamp"), "timestamp"
    if time is None:
        time, clock = joined("position"), "position"
    if time is None:
        clock = None
    user, user_values = _code(columns["user"])
    item, item_values = _code(columns["item"])
    rows = _Rows(
        user=user,
        item=item,
        part=np.concatenate(columns["part"]),
        row=np.concatenate(columns["row"]),
        rating=joined("rating"),
        time=time,
        clock=clock,
        user_values=user_values,
        item_values=item_values,
        paths=paths,
    )
    _reject_duplicates(rows)
    if 0 in paths:
        _reject_untrained(rows)
    return rows


def _require_same_columns(tables: Mapping[Path, pa.Table], names: tuple[str, ...]) -> None:
    """Every file of a split has a column or none has; no file has dates where another has not."""
    for name in names:
        holders = [path for path, table in tables.items() if name in table.column_names]
        for path in tables:
            if holders and path not in holders:
                raise ValueError(
                    f"{path}: column '{name}' is missing, but {holders[0].name} has it; expected "
                    "it in every file or in none"
                )
        if name == "timestamp" and holders:
            kinds = {path: tables[path][name].type for path in holders}
            dated = [path for path in holders if pa.types.is_timestamp(kinds[path])]
            for path, kind in kinds.items():
                # A column of nulls alone has a type of its own, and is no clock.
                if dated and path not in dated and not pa.types.is_null(kind):
                    raise ValueError(
                        f"{path}: column '{name}' is {kind}, but {kinds[dated[0]]} in "
                        f"{dated[0].name}; expected dates in every file or in none"
                    )


def _code(columns: list[pa.ChunkedArray]) -> tuple[np.ndarray, pa.Array]:
    """The number of each id among the sorted distinct ones, and those."""
    joined = pa.chunked_array([chunk for column in columns for chunk in column.chunks])
    values = pc.unique(joined)
    values = values.take(pc.sort_indices(values))
    return pc.index_in(joined, value_set=values).to_numpy().astype(np.int64), values


def _reject_duplicates(rows: _Rows) -> None:
    pair = rows.user * len(rows.item_values) + rows.item
    order = np.argsort(pair, kind="stable")
    again = np.flatnonzero(pair[order][1:] == pair[order][:-1])
    if len(again):
        first, second = order[again[0]], order[again[0] + 1]
        places = [f"{rows.paths[rows.part[at]]}, row {rows.row[at]}" for at in (first, second)]
        raise ValueError(
            f"{places[0]}, and {places[1]} (rows count from 0) both hold user "
            f"{rows.user_values[rows.user[first]].as_py()!r} and item "
            f"{rows.item_values[rows.item[first]].as_py()!r}; expected each pair once"
        )


def _reject_untrained(rows: _Rows) -> None:
    """In a given split everybody who is tested must have been trained on."""
    trained = np.bincount(rows.user[rows.part == 0], minlength=len(rows.user_values)) > 0
    lost = np.flatnonzero(~trained[rows.user])
    if len(lost):
        at = lost[0]
        raise _bad(
            rows.paths[rows.part[at]],
            rows.row[at],
            "user",
            rows.user_values[rows.user[at]].as_py(),
            "a user who has at least one row in train.parquet",
        )


def _split(rows: _Rows, split: str, seed: int, folder: Path) -> np.ndarray:
    if split == "given":
        if -1 in rows.paths:
            raise ValueError(
                f"{folder}: split 'given' needs train.parquet and test.parquet; the folder has "
                "interactions.parquet"
            )
        given = rows.part
        return given if 1 in rows.paths else splits.hold_out(rows.user, given, seed)
    if split == "random":
        return splits.random(rows.user, seed)
    if split == "leave_one_out":
        if rows.time is None:
            raise ValueError(
                f"{folder}: split 'leave_one_out' needs a column 'timestamp' or 'position' in "
                "every file"
            )
        return splits.leave_one_out(rows.user, rows.item, rows.time)
    if rows.clock != "timestamp":
        raise ValueError(
            f"{folder}: split 'temporal' needs a column 'timestamp' with a value in every row"
        )
    return splits.temporal(rows.time)


def _distinct(path: Path, column: str, ids: pa.ChunkedArray) -> pa.Array:
    """The sorted ids; an id that is there twice is an error."""
    codes, values = _code([ids])
    if len(values) < len(ids):
        order = np.argsort(codes, kind="stable")
        again = np.flatnonzero(codes[order][1:] == codes[order][:-1])[0]
        row = int(order[again + 1])
        raise _bad(path, row, column, ids[row].as_py(), f"an id not used in row {order[again]}")
    return values


def _read_side(folder: Path, name: str, key: str, rows: _Rows) -> pa.Table | None:
    """items.parquet or users.parquet: checked, with plain ids; None if there is none."""
    path = folder / f"{name}.parquet"
    if not path.is_file():
        return None
    table = _read(path, (key,))
    ids = _ids(path, table, key)
    values = rows.item_values if key == "item" else rows.user_values
    if ids.type != values.type:
        raise ValueError(
            f"{path}: column '{key}' is {ids.type}, but {values.type} in the interactions; "
            "expected the same type in both"
        )
    distinct = _distinct(path, key, ids)
    unknown = pc.is_null(pc.index_in(values, value_set=distinct)).to_numpy(zero_copy_only=False)
    used = rows.item if key == "item" else rows.user
    at = np.flatnonzero(unknown[used])
    if len(at):
        raise _bad(
            rows.paths[rows.part[at[0]]],
            rows.row[at[0]],
            key,
            values[used[at[0]]].as_py(),
            f"an id that {path.name} knows",
        )
    if name == "items" and "categories" in table.column_names:
        kind = table["categories"].type
        is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
        inner = kind.value_type if is_list else None
        # Where no item has a category, Arrow had no names to tell the type from.
        if pa.types.is_null(kind) or (is_list and pa.types.is_null(inner)):
            inner = pa.string()
            lists = table["categories"].cast(pa.list_(inner))
            table = table.set_column(table.column_names.index("categories"), "categories", lists)
        if inner is None or not (pa.types.is_string(inner) or pa.types.is_large_string(inner)):
            raise ValueError(f"{path}: column 'categories' is {kind}; expected lists of strings")
        lists = table["categories"].combine_chunks()
        flat = pc.list_flatten(lists)
        at = _first_row(pc.or_kleene(pc.is_null(flat), pc.equal(flat, "")))
        if at is not None:
            row = pc.list_parent_indices(lists)[at].as_py()
            raise _bad(path, row, "categories", lists[row].as_py(), "names that are not empty")
    place = table.column_names.index(key)
    return table.set_column(place, key, ids)


def _rows_of(table: pa.Table, key: str, ids: pa.Array) -> pa.Table:
    return table.take(pc.index_in(ids, value_set=table[key].combine_chunks()))


def _titles(items: pa.Table | None) -> tuple[str, ...] | None:
    if items is None or "title" not in items.column_names:
        return None
    titles, ids = items["title"].to_pylist(), items["item"].to_pylist()
    return tuple(str(i) if t is None else str(t) for t, i in zip(titles, ids, strict=True))


def _fields(table: pa.Table | None, known: tuple[str, ...]) -> dict[str, tuple]:
    if table is None:
        return {}
    names = [name for name in table.column_names if name not in known]
    return {name: tuple(table[name].to_pylist()) for name in names}


def _categories(items: pa.Table | None, about: dict, notes: list[str]):
    """(N, C) rows p(c|i), names, kind; (None, None, None) where no item has a category."""
    if items is None or "categories" not in items.column_names:
        return None, None, None
    lists = items["categories"].combine_chunks()
    flat = pc.list_flatten(lists).cast(pa.string())
    if not len(flat):
        return None, None, None
    row = pc.list_parent_indices(lists).to_numpy()
    bare = np.setdiff1d(np.arange(len(items)), row)
    names = sorted(set(pc.unique(flat).to_pylist()) | ({UNKNOWN} if len(bare) else set()))
    column = pc.index_in(flat, value_set=pa.array(names, pa.string())).to_numpy()
    has_NC = torch.zeros(len(items), len(names))
    has_NC[torch.from_numpy(row.astype(np.int64)), torch.from_numpy(column.astype(np.int64))] = 1.0
    if len(bare):
        has_NC[torch.from_numpy(bare), names.index(UNKNOWN)] = 1.0
        notes.append(f"{len(bare):,} items without a category count as '{UNKNOWN}'")
    kind = about.get("category_kind", "categories")
    return has_NC / has_NC.sum(1, keepdim=True), tuple(names), kind


def _read_knowledge(folder: Path, item_ids: pa.Array) -> Knowledge | None:
    path = folder / "knowledge.parquet"
    if not path.is_file():
        return None
    table = _read(path, ("head", "relation", "tail"))
    if not len(table):
        raise ValueError(f"{path}: the file has no rows")
    triple = {}
    for name in ("head", "relation", "tail"):
        triple[name] = _ids(path, table, name).cast(pa.string())
    link_path = folder / "links.parquet"
    links = _read(link_path, ("item", "entity"))
    link_item, link_entity = _ids(link_path, links, "item"), _ids(link_path, links, "entity")
    if link_item.type != item_ids.type:
        raise ValueError(
            f"{link_path}: column 'item' is {link_item.type}, but {item_ids.type} in the "
            "interactions; expected the same type in both"
        )
    _distinct(link_path, "item", link_item)
    row = pc.index_in(item_ids, value_set=link_item.combine_chunks())
    linked = link_entity.cast(pa.string()).take(row)
    code, entities = _code([triple["head"], triple["tail"], link_entity.cast(pa.string())])
    relation, relations = _code([triple["relation"]])
    entity = pc.fill_null(pc.index_in(linked, value_set=entities), -1)
    m = len(table)
    return Knowledge(
        head=torch.from_numpy(code[:m].copy()),
        relation=torch.from_numpy(relation),
        tail=torch.from_numpy(code[m : 2 * m].copy()),
        item_entity=torch.from_numpy(entity.to_numpy().astype(np.int64)),
        entity_names=tuple(entities.to_pylist()),
        relation_names=tuple(relations.to_pylist()),
    )
