"""Reading data-set folders: what comes out, and what each kind of bad data is told."""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from inforec.data import Dataset, load
from inforec.data.dataset import strata

MS = pa.timestamp("ms")


def _table(users=12, items=20, seed=0, **more):
    """Ratings of 4 by users of at least ten items each, in shuffled rows."""
    rng = np.random.default_rng(seed)
    pairs = [(u, i) for u in range(users) for i in rng.permutation(items)[:10]]
    rng.shuffle(pairs)
    user, item = np.array(pairs).T
    columns = {"user": user, "item": item}
    for name in more:
        columns[name] = (
            rng.integers(4, 6, len(user)) if name == "rating" else rng.permutation(len(user))
        )
    return columns


def _pairs(dataset: Dataset, part: str) -> set:
    rows = getattr(dataset, part)
    return {
        (dataset.user_ids[u], dataset.item_ids[i])
        for u, i in zip(rows.user.tolist(), rows.item.tolist(), strict=True)
    }


def test_the_three_sets_hold_every_interaction_once(write):
    columns = _table()
    dataset = load(write(interactions=columns))
    sets = [_pairs(dataset, part) for part in ("train", "valid", "test")]
    assert [len(part) for part in sets] == [96, 12, 12]
    expected = set(zip(columns["user"].tolist(), columns["item"].tolist(), strict=True))
    assert set.union(*sets) == expected and sum(map(len, sets)) == len(expected)
    assert dataset.name == "own" and dataset.clock is None


def test_rows_order_and_file_form_do_not_matter(write):
    columns = _table(rating=True, timestamp=True)
    first = load(write(interactions=columns))
    back = {name: values[::-1].copy() for name, values in columns.items()}
    assert load(write(interactions=back)).fingerprint == first.fingerprint
    assert load(write(), seed=1).fingerprint != first.fingerprint


def test_ids_may_be_strings_and_large_numbers(write):
    plain = load(write(interactions=_table()))
    columns = _table()
    columns["user"] = pa.array([f"user {u:02}" for u in columns["user"]]).dictionary_encode()
    columns["item"] = columns["item"].astype(np.int64) + 2**53
    named = load(write(interactions=columns))
    assert named.user_ids[3] == "user 03" and named.item_ids[0] == 2**53
    assert torch.equal(named.train.user, plain.train.user)
    assert torch.equal(named.test.item, plain.test.item)


def test_ratings_and_rare_users_are_filtered(write):
    user = np.repeat([7, 8, 9], [6, 6, 4])
    item = np.array([*range(6), *range(6), 0, 1, 2, 99])
    rating = np.full(16, 4.0)
    rating[[0, 6, 7]] = [3.5, 1, 2]
    dataset = load(write(interactions={"user": user, "item": item, "rating": rating}))
    # User 7 keeps five, user 8 four and user 9 four: the last two go, and with them items 0 and 99.
    assert dataset.user_ids == (7,) and dataset.item_ids == (1, 2, 3, 4, 5)
    assert dataset.notes[0] == "2 users with fewer than 5 interactions dropped"
    assert dataset.train.rating.dtype == torch.float32
    everyone = load(write(), min_rating=0, min_interactions=3)
    assert everyone.num_users == 3 and everyone.num_items == 7


def test_leave_one_out_goes_by_timestamp_or_position(write):
    columns = _table(timestamp=True)
    dataset = load(write(interactions=columns), split="leave_one_out")
    assert dataset.clock == "timestamp"
    for u in range(12):
        mine = np.flatnonzero(columns["user"] == u)
        last = mine[np.argsort(columns["timestamp"][mine])]
        assert (u, columns["item"][last[-1]]) in _pairs(dataset, "test")
        assert (u, columns["item"][last[-2]]) in _pairs(dataset, "valid")
    columns["position"] = columns["timestamp"]
    partly = [None if t % 3 == 0 else int(t) for t in columns["timestamp"]]
    again = load(
        write(interactions={**columns, "timestamp": pa.array(partly, pa.int64())}),
        split="leave_one_out",
    )
    assert again.clock == "position" and again.fingerprint == dataset.fingerprint


def test_time_keeps_its_row(write):
    columns = _table(timestamp=True)
    dataset = load(write(interactions=columns))
    clock = {
        (int(u), int(i)): int(t)
        for u, i, t in zip(*(columns[k] for k in ("user", "item", "timestamp")), strict=True)
    }
    rows = dataset.test
    for u, i, t in zip(rows.user.tolist(), rows.item.tolist(), rows.time.tolist(), strict=True):
        assert clock[dataset.user_ids[u], dataset.item_ids[i]] == t


@pytest.mark.parametrize(("unit", "per_tick"), [("ms", 10**6), ("us", 10**3), ("ns", 1)])
@pytest.mark.parametrize("zone", [None, "UTC"])
def test_dates_keep_their_order_in_every_unit(write, unit, per_tick, zone):
    columns = _table(timestamp=True)
    ticks = columns["timestamp"]
    whole = load(write(interactions=columns), split="temporal")
    columns["timestamp"] = pa.array(ticks, pa.timestamp(unit, zone))
    dated = load(write(interactions=columns), split="temporal")
    assert dated.fingerprint == whole.fingerprint
    assert torch.equal(dated.train.time, whole.train.time * per_tick)


def test_dates_of_different_units_share_a_clock(write):
    train = {"user": [0] * 9, "item": list(range(9)), "timestamp": pa.array(range(9), MS)}
    test = {"user": [0], "item": [9], "timestamp": pa.array([10_001], pa.timestamp("us"))}
    dataset = load(_given(write, train=train, test=test), split="given")
    assert dataset.test.time.tolist() == [10_001_000]
    assert int(dataset.train.time.max()) == 8_000_000


def test_whole_floats_are_timestamps(write):
    columns = _table(timestamp=True)
    whole = load(write(interactions=columns), split="temporal")
    columns["timestamp"] = columns["timestamp"].astype(np.float64)
    again = load(write(interactions=columns), split="temporal")
    assert torch.equal(again.train.time, whole.train.time)
    assert again.train.time.dtype == torch.int64


def test_temporal_drops_users_that_were_never_trained_on(write):
    columns = {"user": np.repeat([0, 1], [100, 5]), "item": np.r_[np.arange(100), np.arange(5)]}
    early = {**columns, "timestamp": np.r_[np.arange(100), np.arange(5)]}
    assert load(write(interactions=early), split="temporal").user_ids == (0, 1)
    late = {**columns, "timestamp": np.r_[np.arange(100), np.arange(95, 100)]}
    dataset = load(write(interactions=late), split="temporal")
    assert dataset.user_ids == (0,)
    assert "1 users without a training item dropped" in dataset.notes


def test_given_split_is_taken_as_it_is(write):
    folder = write(
        train={"user": [0, 0, 1, 1], "item": [0, 1, 0, 2]},
        valid={"user": [0], "item": [2]},
        test={"user": [1], "item": [1]},
    )
    dataset = load(folder, split="given")
    assert _pairs(dataset, "train") == {(0, 0), (0, 1), (1, 0), (1, 2)}
    assert _pairs(dataset, "valid") == {(0, 2)} and _pairs(dataset, "test") == {(1, 1)}


def test_given_split_without_validation_holds_some_out(write):
    columns = _table()
    cut = {name: values[:90] for name, values in columns.items()}
    rest = {name: values[90:] for name, values in columns.items()}
    dataset = load(write(train=cut, test=rest), split="given")
    pairs = set(zip(rest["user"].tolist(), rest["item"].tolist(), strict=True))
    assert _pairs(dataset, "test") == pairs
    assert len(dataset.train) + len(dataset.valid) == 90
    assert (dataset.valid.user_counts == 1).all()
    anew = load(write(), split="random")  # the folder's interactions, split anew
    assert len(anew.test) == 12 and anew.fingerprint != dataset.fingerprint


def test_category_rows_and_interest(write):
    lists = [["b", "a"], ["c"], None, ["a", "a"], []] * 4
    items = {"item": np.arange(20), "title": [f"t{i}" for i in range(20)], "categories": lists}
    items["title"][5] = None
    items["weight"] = list(range(20))
    dataset = load(write(interactions=_table(), items=items))
    assert dataset.category_names == ("a", "b", "c", "unknown")
    rows = [[0.5, 0.5, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [1, 0, 0, 0], [0, 0, 0, 1]]
    assert torch.equal(dataset.category_NC, torch.tensor(rows * 4))
    assert dataset.item_titles[4:6] == ("t4", "5") and dataset.category_kind == "categories"
    assert dataset.item_fields == {"weight": tuple(range(20))}
    assert "8 items without a category count as 'unknown'" in dataset.notes
    for u in range(dataset.num_users):
        mine = dataset.train.item[dataset.train.user == u].tolist()
        mean = sum(dataset.category_NC[i].double() for i in mine) / len(mine)
        assert torch.allclose(dataset.interest_UC[u].double(), mean, atol=1e-6)
    assert torch.allclose(dataset.interest_UC.sum(1), torch.ones(12), atol=1e-6)


def test_strata_stand_in_for_categories(write):
    dataset = load(write(interactions=_table()))
    assert dataset.category_kind == "popularity strata"
    assert dataset.category_names == ("head", "middle", "tail")
    assert torch.equal(dataset.category_NC, strata(dataset.train.item_counts))


@pytest.mark.parametrize(
    "categories",
    [
        [None] * 20,
        [[]] * 20,
        [[], None] * 10,
        pa.array([[]] * 20, pa.large_list(pa.null())),
        pa.array([None] * 20, pa.list_(pa.string())),
    ],
)
def test_strata_stand_in_where_no_item_has_a_category(write, categories):
    items = {"item": np.arange(20), "categories": categories}
    dataset = load(write(interactions=_table(), items=items))
    assert dataset.category_kind == "popularity strata"
    assert dataset.category_names == ("head", "middle", "tail")


def test_strata_follow_their_definition():
    count_N = torch.tensor([0, 1, 20, 3, 1, 19, 30, 1, 25])  # 100 in all
    which = strata(count_N).argmax(1).tolist()
    # By count: 6 (30) is head, as the first 20 lie in it; 8 (25), 2 (20) and 5 (19, up to 94) are
    # middle except 5, after which 6 of 100 are left; 5 and the rest are tail.
    assert which == [2, 2, 1, 2, 2, 2, 0, 2, 1]
    assert torch.equal(strata(count_N).sum(1), torch.ones(9))
    # On the border: a fifth each, so that the first fills the head and the last the tail.
    assert strata(torch.full((5,), 7)).argmax(1).tolist() == [0, 1, 1, 1, 2]


def test_users_and_knowledge(write):
    folder = write(
        interactions=_table(),
        users={"user": np.arange(12)[::-1].copy(), "age": np.arange(12)[::-1] + 30},
        knowledge={"head": ["e1", "e9"], "relation": ["r", "q"], "tail": ["e0", "e1"]},
        links={"item": [3, 2, 77], "entity": ["e9", "e5", "e6"]},
    )
    dataset = load(folder)
    assert dataset.user_fields == {"age": tuple(range(30, 42))}
    graph = dataset.knowledge
    assert graph.entity_names == ("e0", "e1", "e5", "e6", "e9")
    assert graph.relation_names == ("q", "r") and len(graph) == 2
    assert graph.head.tolist() == [1, 4] and graph.tail.tolist() == [0, 1]
    assert graph.relation.tolist() == [1, 0]
    assert graph.item_entity[[1, 2, 3]].tolist() == [-1, 2, 4]
    assert (graph.num_entities, graph.num_relations) == (5, 2)


def test_to_moves_every_tensor(write):
    folder = write(
        interactions=_table(rating=True, timestamp=True),
        knowledge={"head": ["a"], "relation": ["r"], "tail": ["b"]},
        links={"item": [0], "entity": ["a"]},
    )
    moved = load(folder).to("meta")
    assert moved.train.time.device.type == moved.category_NC.device.type == "meta"
    assert moved.valid.user.device.type == moved.test.rating.device.type == "meta"
    assert moved.knowledge.item_entity.device.type == "meta"


def test_fingerprint_sees_categories(write):
    items = {"item": np.arange(20), "categories": [["a"]] * 10 + [["b"]] * 10}
    first = load(write(interactions=_table(), items=items)).fingerprint
    items["categories"][3] = ["b"]
    assert load(write(items=items)).fingerprint != first


def test_dataset_json_describes_the_folder(write):
    folder = write(interactions=_table())
    about = {"name": "mine", "licence": "CC0", "description": "d", "source": "s"}
    (folder / "dataset.json").write_text(json.dumps(about))
    dataset = load(folder)
    assert (dataset.name, dataset.licence, dataset.source) == ("mine", "CC0", "s")


# ---- what bad data are told ---------------------------------------------------------------------


def _with(column, row, value):
    clock = "position" if column == "position" else "timestamp"
    columns = _table(rating=True, **{clock: True})
    values = columns[column].tolist()
    values[row] = value
    if isinstance(value, int) and value >= 2**63:
        values = pa.array(values, pa.uint64())
    return {**columns, column: values}


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("user", -1),
        ("item", -7),
        ("user", None),
        ("item", float("nan")),
        ("item", float("inf")),
        ("rating", float("nan")),
        ("rating", float("inf")),
        ("rating", -2),
        ("rating", None),
        ("timestamp", None),
        ("rating", 1e300),
        ("timestamp", -5),
        ("timestamp", 17.5),
        ("timestamp", float("inf")),
        ("timestamp", float("nan")),
        ("timestamp", 2.0**63),
        ("timestamp", 2**63),
        ("position", 17.5),
        ("position", 2**63),
        ("user", 2**63),
        ("item", 2**64 - 1),
    ],
)
def test_a_bad_value_is_named_with_file_row_and_column(write, column, value):
    folder = write(interactions=_with(column, 17, value))
    where = re.escape(f"interactions.parquet, row 17 (rows count from 0), column '{column}': ")
    with pytest.raises(ValueError, match=where) as caught:
        load(folder)
    assert f"': {value!r}; expected" in str(caught.value)


@pytest.mark.parametrize(
    ("unit", "tick", "date"),
    [
        ("ms", -1, "1969-12-31 23:59:59.999"),
        ("ns", -1, "1969-12-31 23:59:59.999999999"),
        ("ms", 10**13, "2286-11-20 17:46:40.000"),
        ("us", 10**16, "2286-11-20 17:46:40.000000"),
    ],
)
def test_a_date_the_clock_cannot_hold_is_named(write, unit, tick, date):
    columns = _table(timestamp=True)
    ticks = columns["timestamp"].tolist()
    ticks[17] = tick
    folder = write(interactions={**columns, "timestamp": pa.array(ticks, pa.timestamp(unit))})
    message = rf"interactions.parquet, row 17 .* 'timestamp': '{date}'; expected a date from 1970"
    with pytest.raises(ValueError, match=message):
        load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"user": None}, "column 'user' is missing; the columns are item, rating"),
        ({"item": None}, "column 'item' is missing"),
        ({"user": [0.5] * 120}, "column 'user' is double; expected integers or strings"),
        ({"item": [True] * 120}, "column 'item' is bool; expected integers or strings"),
        ({"rating": ["good"] * 120}, "column 'rating' is string; expected numbers"),
        ({"rating": pa.array([1] * 120, MS)}, "'rating' is timestamp.ms.; expected numbers"),
        ({"user": ["x"] * 7 + [""] * 113}, "row 7 .* column 'user': ''; expected an id that is n"),
    ],
)
def test_a_bad_column_is_named(write, change, message):
    columns = {**_table(rating=True), **change}
    with pytest.raises(ValueError, match=message):
        load(write(interactions={k: v for k, v in columns.items() if v is not None}))


def test_duplicates_are_named_with_both_rows(write):
    columns = {name: [*values, values[4]] for name, values in _table().items()}
    with pytest.raises(ValueError, match=r"row 4, and .*row 120 .* both hold user \d+ and item"):
        load(write(interactions=columns))


def test_a_pair_in_two_files_is_named_with_both(write):
    train = {"user": [0, 0, 1], "item": [0, 1, 1]}
    with pytest.raises(
        ValueError, match=r"train.parquet, row 1, and .*test.parquet, row 0 .* user 0 and item 1"
    ):
        load(write(train=train, test={"user": [0], "item": [1]}), split="given")


def _given(write, **tables):
    known = {
        "train": {"user": [0, 0, 1, 1], "item": [0, 1, 0, 2]},
        "test": {"user": [0, 1], "item": [2, 1]},
    }
    return write(**{**known, **tables})


@pytest.mark.parametrize("column", ["rating", "timestamp", "position"])
@pytest.mark.parametrize("lacking", ["train", "valid", "test"])
def test_a_column_that_one_file_lacks_is_named(write, column, lacking):
    tables = {
        "train": {"user": [0, 0, 1, 1], "item": [0, 1, 0, 2], column: [5, 4, 3, 2]},
        "valid": {"user": [0], "item": [3], column: [5]},
        "test": {"user": [0, 1], "item": [2, 1], column: [5, 1]},
    }
    assert len(load(write(**tables), split="given", min_rating=0).train) == 4
    del tables[lacking][column]
    holder = "valid" if lacking == "train" else "train"
    message = rf"{lacking}.parquet: column '{column}' is missing, but {holder}.parquet has it"
    with pytest.raises(ValueError, match=message):
        load(write(**tables), split="given")


def test_dates_in_one_file_and_numbers_in_another_are_an_error(write):
    train = {"user": [0, 0, 1], "item": [0, 1, 1], "timestamp": [1, 2, 3]}
    test = {"user": [0], "item": [2], "timestamp": pa.array([4000], MS)}
    message = r"train.parquet: column 'timestamp' is int64, but timestamp.ms. in test.parquet"
    with pytest.raises(ValueError, match=message):
        load(write(train=train, test=test), split="given")


def test_a_folder_of_both_forms_is_an_error(write):
    with pytest.raises(ValueError, match=r"interactions.parquet and train.parquet are both there"):
        load(_given(write, interactions=_table()))


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        (
            {"test": {"user": [0, 5], "item": [2, 1]}},
            r"test.parquet, row 1 .* 'user': 5; expected a user who has at least one row in train",
        ),
        ({"test": None}, "test.parquet: the file is missing"),
        ({"train": None}, "train.parquet: the file is missing"),
        (
            {"test": {"user": pa.array([], pa.int64()), "item": pa.array([], pa.int64())}},
            "test.parquet: the file has no rows",
        ),
        (
            {"test": {"user": ["0", "1"], "item": [2, 1]}},
            "test.parquet: column 'user' is string, but int64 in train.parquet",
        ),
        (
            {"items": {"item": [0, 2]}},
            r"train.parquet, row 1 .* 'item': 1; expected an id that items.parquet knows",
        ),
        (
            {"users": {"user": [0]}},
            r"train.parquet, row 2 .* 'user': 1; expected an id that users.parquet knows",
        ),
        (
            {"items": {"item": [0, 1, 2, 1]}},
            r"items.parquet, row 3 .* 'item': 1; expected an id not used in row 1",
        ),
        ({"items": {"item": ["0", "1", "2"]}}, "items.parquet: column 'item' is string, but int64"),
        (
            {"items": {"item": [0, 1, 2], "categories": ["a", "b", "c"]}},
            "items.parquet: column 'categories' is string; expected lists of strings",
        ),
        (
            {"items": {"item": [0, 1, 2], "categories": [["a"], None, ["b", ""]]}},
            r"items.parquet, row 2 .* 'categories': \['b', ''\]; expected names that are not",
        ),
        (
            {"items": {"item": [0, 1, 2], "categories": [[], None, [None]]}},
            r"items.parquet, row 2 .* 'categories': \[None\]; expected names that are not",
        ),
        (
            {"knowledge": {"head": ["a"], "relation": ["r"], "tail": ["b"]}},
            "links.parquet: the file is missing",
        ),
        (
            {
                "knowledge": {"head": ["a", None], "relation": ["r", "r"], "tail": ["b", "b"]},
                "links": {"item": [0], "entity": ["a"]},
            },
            r"knowledge.parquet, row 1 .* 'head': None",
        ),
        (
            {
                "knowledge": {"head": ["a"], "relation": ["r"], "tail": ["b"]},
                "links": {"item": [0, 0], "entity": ["a", "b"]},
            },
            r"links.parquet, row 1 .* 'item': 0; expected an id not used in row 0",
        ),
    ],
)
def test_bad_files_of_a_folder_are_named(write, tables, message):
    with pytest.raises(ValueError, match=message):
        load(_given(write, **tables), split="given")


def test_an_empty_set_is_an_error(write):
    # Two interactions a user are too few to test on, so validation and test would be empty.
    columns = {"user": [0, 0, 1, 1], "item": [0, 1, 0, 1]}
    with pytest.raises(ValueError, match="split 'random' leaves no interaction for valid"):
        load(write(interactions=columns), min_interactions=1)


def test_filters_that_keep_nothing_are_an_error(write):
    folder = write(interactions=_table(rating=True))
    with pytest.raises(ValueError, match=r"min_rating 9 and min_interactions 5 keep none of the 1"):
        load(folder, min_rating=9)


def test_splits_say_what_they_need(write):
    folder = write(interactions=_table())
    with pytest.raises(ValueError, match="'leave_one_out' needs a column 'timestamp' or 'positio"):
        load(folder, split="leave_one_out")
    with pytest.raises(ValueError, match="'temporal' needs a column 'timestamp'"):
        load(folder, split="temporal")
    with pytest.raises(ValueError, match=r"'given' needs train.parquet and test.parquet"):
        load(folder, split="given")
    write(interactions=_table(position=True))
    with pytest.raises(ValueError, match="'temporal' needs a column 'timestamp'"):
        load(folder, split="temporal")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "kfold"}, "split='kfold': expected one of random, leave_one_out, temporal"),
        ({"min_rating": float("nan")}, "min_rating=nan: expected a finite number"),
        ({"min_rating": "4"}, "min_rating='4': expected a finite number"),
        ({"min_interactions": 0}, "min_interactions=0: expected a whole number at least 1"),
        ({"min_interactions": 2.5}, "min_interactions=2.5: expected a whole number at least 1"),
        ({"seed": -1}, "seed=-1: expected a whole number at least 0"),
        ({"seed": True}, "seed=True: expected a whole number at least 0"),
    ],
)
def test_bad_arguments_are_named(write, arguments, message):
    with pytest.raises(ValueError, match=message):
        load(write(interactions=_table()), **arguments)


def test_unknown_name_gives_the_nearest():
    with pytest.raises(ValueError, match="unknown data set 'ml100k'; the nearest are: ml-100k"):
        load("ml100k")
    with pytest.raises(ValueError, match=r"unknown data set 'nosuch'.*known are: .*ml-100k, ml-1m"):
        load("nosuch")


def test_a_path_that_is_no_folder(tmp_path):
    with pytest.raises(ValueError, match="nothing' is not a folder"):
        load(tmp_path / "nothing")
    with pytest.raises(ValueError, match="is not a folder"):
        load("./nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"neither interactions.parquet nor train.parquet"):
        load(tmp_path / "empty")


def test_a_truncated_file_is_named(write):
    folder = write(interactions=_table())
    path = folder / "interactions.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"interactions.parquet: not a readable Parquet file"):
        load(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "expected a JSON object, found list"),
        ('{"licence": 3}', "licence is 3; expected a string"),
        ('{"files": 3}', "files is 3"),
        ('{"files": {"interactions.parquet": "00"}}', "is not the one that dataset.json lists"),
        ('{"files": {"gone.parquet": "00"}}', "gone.parquet: the file is missing"),
    ],
)
def test_a_bad_dataset_json_is_named(write, text, message):
    folder = write(interactions=_table())
    Path(folder / "dataset.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        load(folder)
