"""Labelled rows: fields, vocabularies, unseen values, histories, splits, and what is refused."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from inforec.data import load, load_impressions, splits
from inforec.data.impressions import histories
from inforec.types import PAD


def rows(n=200):
    """Labelled rows by arithmetic: 12 users, a clock, integers, strings and lists."""
    return {
        "user": [f"u{(5 * i) % 12:02}" for i in range(n)],
        "item": [(7 * i + i // 12) % 31 for i in range(n)],
        "label": [int(i % 3 > 0) for i in range(n)],
        "position": [i // 12 for i in range(n)],
        "place": ["home" if i % 4 else "work" for i in range(n)],
        "tags": [[f"t{k}" for k in range(i % 5) if (i + k) % 2] for i in range(n)],
    }


@pytest.fixture
def whole(write):
    return write(impressions=rows())


def joined(clicks, name):
    return torch.cat([clicks.train.fields[name], clicks.valid.fields[name]])


def test_fields_are_numbered_from_one_in_the_order_of_the_values_that_training_has(whole):
    clicks = load_impressions(whole)
    assert (len(clicks.train), len(clicks.valid), len(clicks.test)) == (160, 20, 20)
    assert list(clicks.train.fields) == ["user", "item", "place", "tags"]
    for name, values in clicks.vocabulary.items():
        assert list(values) == sorted(values) and clicks.train.sizes[name] == len(values) + 1
        numbers = clicks.train.fields[name]
        assert set(numbers[numbers != PAD].tolist()) == set(range(1, len(values) + 1))
    assert clicks.vocabulary["place"] == ("home", "work")
    # Back to the files: every row is there once, with its own values.
    part, source = splits.shuffled(200, 2026), rows()
    for which, split in enumerate((clicks.train, clicks.valid, clicks.test)):
        for at, row in enumerate(np.flatnonzero(part == which)):
            assert split.label[at] == source["label"][row]
            for name in ("user", "item", "place"):
                number = int(split.fields[name][at])
                known = clicks.vocabulary[name]
                value = source[name][row]
                assert known[number - 1] == value if number else value not in known
            numbers = split.fields["tags"][at]
            tags = [clicks.vocabulary["tags"][n - 1] for n in numbers.tolist() if n != PAD]
            assert tags == source["tags"][row]


def test_unseen_and_missing_values_are_number_zero(write):
    train = {
        "user": [1, 2, 3],
        "label": [0, 1, 1],
        "city": ["a", None, "b"],
        "tags": [[1], [], [2, 1]],
    }
    test = {"user": [1, 9], "label": [1, 0], "city": ["c", None], "tags": [[3, 2], [1]]}
    folder = write(
        train=pa.table(train).to_pydict(),
        valid={**train, "user": [3, 2, 1]},
        test=test,
    )
    clicks = load_impressions(folder, split="given")
    assert clicks.train.fields["user"].tolist() == [1, 2, 3]
    assert clicks.test.fields["user"].tolist() == [1, 0]
    assert clicks.train.fields["city"].tolist() == [1, 0, 2]
    assert clicks.test.fields["city"].tolist() == [0, 0]
    assert clicks.train.fields["tags"].tolist() == [[1, PAD], [PAD, PAD], [2, 1]]
    assert clicks.test.fields["tags"].tolist() == [[0, 2], [1, PAD]]
    assert clicks.vocabulary == {"user": (1, 2, 3), "city": ("a", "b"), "tags": (1, 2)}
    # Users that training does not know are still told apart.
    assert clicks.test.user[0] != clicks.test.user[1]
    assert any("user: 1 held-out rows" in note for note in clicks.notes)


def test_the_random_split_takes_a_tenth_twice_of_all_rows():
    part = splits.shuffled(1009, 7)
    assert np.bincount(part).tolist() == [809, 100, 100]
    assert np.array_equal(part, splits.shuffled(1009, 7))
    assert not np.array_equal(part, splits.shuffled(1009, 8))
    # Here and there alike: each hundred has about ten of each.
    chunks = np.add.reduceat(part == splits.TEST, range(0, 1000, 100))
    assert chunks.min() > 0 and chunks.max() < 25


def test_the_time_ordered_split_ends_with_each_users_last_rows(whole):
    clicks, source = load_impressions(whole, split="time_ordered"), rows()
    for user in range(12):
        places = sorted(
            p for u, p in zip(source["user"], source["position"], strict=True) if u == f"u{user:02}"
        )
        share = max(1, round(0.1 * len(places)))
        assert int((clicks.test.user == user).sum()) == share
        assert int((clicks.valid.user == user).sum()) == share
        assert int((clicks.train.user == user).sum()) == len(places) - 2 * share
    part = splits.time_ordered(np.array([0, 0, 0, 0, 1, 1]), np.array([4, 1, 3, 2, 9, 8]))
    assert part.tolist() == [splits.TEST, splits.TRAIN, splits.VALID, *[splits.TRAIN] * 3]


def test_a_given_split_without_validation_gives_a_tenth_of_its_training_rows(write):
    source = rows()
    front = {name: column[:150] for name, column in source.items()}
    back = {name: column[150:] for name, column in source.items()}
    clicks = load_impressions(write(train=front, test=back), split="given")
    assert (len(clicks.train), len(clicks.valid), len(clicks.test)) == (135, 15, 50)
    assert clicks.test.label.tolist() == back["label"]
    assert any("no valid.parquet" in note for note in clicks.notes)
    again = load_impressions(write(train=front, test=back))  # split anew: all rows
    assert len(again.train) == 160


def slow_history(source, part, row, length):
    """The items of the user's earlier training rows with label 1."""
    liked = [
        (source["position"][i], source["item"][i])
        for i in range(len(source["user"]))
        if part[i] == splits.TRAIN
        and source["label"][i] == 1
        and source["user"][i] == source["user"][row]
        and source["position"][i] < source["position"][row]
    ]
    return [item for _, item in sorted(liked)][-length:]


@pytest.mark.parametrize("split", ["random", "time_ordered"])
def test_histories_hold_earlier_liked_training_rows_only(whole, split):
    clicks, source = load_impressions(whole, split=split, history=3), rows()
    part = splits.shuffled(200, 2026)
    if split == "time_ordered":
        user = np.array([int(u[1:]) for u in source["user"]])
        part = splits.time_ordered(user, np.array(source["position"]))
    lengths = set()
    for which, chosen in enumerate((clicks.train, clicks.valid, clicks.test)):
        for at, row in enumerate(np.flatnonzero(part == which)):
            slow = slow_history(source, part, row, 3)
            found = [n for n in chosen.history[at].tolist() if n != PAD]
            assert [clicks.vocabulary["item"][n - 1] for n in found] == slow
            assert chosen.history[at].tolist() == [PAD] * (3 - len(slow)) + found
            lengths.add(len(slow))
    assert lengths == {0, 1, 2, 3}
    assert load_impressions(whole, split=split).train.history is None


def test_nobody_liked_anything():
    zeros = np.zeros(3, np.int64)
    assert (histories(zeros, np.arange(3), zeros, np.zeros(3, bool), 2) == PAD).all()


def test_the_fingerprint_tells_data_apart(write):
    same = [load_impressions(write(impressions=rows())).fingerprint for _ in range(2)]
    assert same[0] == same[1] and len(same[0]) == 64
    for name, value in (("label", 1), ("place", "sea"), ("tags", ["t9"]), ("user", "u99")):
        changed = rows()
        changed[name][0] = value
        assert load_impressions(write(impressions=changed)).fingerprint != same[0]
    folder = write(impressions=rows())
    assert load_impressions(folder, seed=1).fingerprint != same[0]
    assert load_impressions(folder, history=2).fingerprint != same[0]


def test_moved_to_a_device_it_is_the_same(whole):
    clicks = load_impressions(whole, history=2)
    moved = clicks.to("cpu")
    assert moved.fingerprint == clicks.fingerprint and moved.train.sizes == clicks.train.sizes


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("label", 2, r"impressions.parquet, row 4 .*column 'label': 2; expected 0 or 1"),
        ("label", None, r"impressions.parquet, row 4 .*column 'label': None; expected 0 or 1"),
        ("user", None, r"impressions.parquet, row 4 .*column 'user': None"),
        ("position", -1, r"impressions.parquet, row 4 .*column 'position': -1"),
    ],
)
def test_a_bad_value_is_named_with_file_row_and_column(write, column, value, message):
    source = rows()
    source[column][4] = value
    with pytest.raises(ValueError, match=message):
        load_impressions(write(impressions=source), split="time_ordered")


def test_numbers_that_are_no_categories_are_refused(write):
    source = {**rows(), "price": [0.5 * i for i in range(200)]}
    with pytest.raises(ValueError, match=r"impressions.parquet: column 'price' is double.*bins"):
        load_impressions(write(impressions=source))
    source = {**rows(), "label": ["yes"] * 200}
    with pytest.raises(ValueError, match="column 'label' is string; expected 0 and 1"):
        load_impressions(write(impressions=source))


def test_files_must_have_the_same_columns(write):
    source = rows()
    with pytest.raises(ValueError, match=r"test.parquet: column 'tags' is not there, but list"):
        load_impressions(write(train=source, test={k: v for k, v in source.items() if k != "tags"}))
    with pytest.raises(ValueError, match=r"test.parquet: column 'item' is string, but int64"):
        load_impressions(write(train=source, test={**source, "item": ["a"] * 200}))


def test_what_a_folder_lacks_is_said(write, tmp_path):
    source = rows()
    no_clock = {k: v for k, v in source.items() if k != "position"}
    folder = write(impressions=no_clock)
    assert len(load_impressions(folder).test) == 20
    with pytest.raises(ValueError, match="split='time_ordered' with history=0 needs a column 'pos"):
        load_impressions(folder, split="time_ordered")
    with pytest.raises(ValueError, match="history=5 needs a column 'position' or 'timestamp'"):
        load_impressions(folder, history=5)
    with pytest.raises(ValueError, match=r"split='given' needs train.parquet and test.parquet"):
        load_impressions(folder, split="given")
    no_item = {k: v for k, v in source.items() if k != "item"}
    with pytest.raises(ValueError, match="history=5 needs a column 'item'"):
        load_impressions(write(impressions=no_item), history=5)
    with pytest.raises(ValueError, match="column 'label' is missing"):
        load_impressions(write(impressions={"user": [1]}))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no labelled rows; expected impressions.parquet"):
        load_impressions(tmp_path / "empty")
    with pytest.raises(ValueError, match="leaves no row for valid"):
        load_impressions(write(impressions={k: v[:9] for k, v in source.items()}))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "temporal"}, "split='temporal': expected one of random, time_ordered, given"),
        ({"seed": -1}, "seed=-1"),
        ({"history": 1.5}, "history=1.5"),
    ],
)
def test_a_bad_argument_is_named(whole, arguments, message):
    with pytest.raises(ValueError, match=message):
        load_impressions(whole, **arguments)
    with pytest.raises(ValueError, match=r"'ml-1m-click'.*did you mean 'ml-1m-ctr'"):
        load_impressions("ml-1m-click")


def test_load_refuses_labelled_rows_and_says_where_to_go(write):
    source = rows()
    folder = write(train=source, test=source)
    with pytest.raises(ValueError, match=r"column 'label' makes these labelled rows.*load_impress"):
        load(Path(folder), split="given")
