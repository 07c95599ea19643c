"""Small data sets for the tests of the library, made by arithmetic: no generator decides them.

Shape letters: U users, N items, C categories.
"""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from inforec.data import Dataset
from inforec.types import PAD, Impressions, Interactions

NUM_USERS, NUM_ITEMS, NUM_CATEGORIES = 24, 30, 3


def table(pairs, num_users, num_items, time=None):
    """Interactions from a list of (user, item) pairs."""
    user = torch.tensor([u for u, _ in pairs], dtype=torch.int64)
    item = torch.tensor([i for _, i in pairs], dtype=torch.int64)
    if time is not None:
        time = torch.tensor(time, dtype=torch.int64)
    return Interactions(user, item, num_users, num_items, time=time)


def dataset(train, valid, test, num_users, num_items, category_NC=None):
    """A Dataset from three lists of pairs."""
    names = None if category_NC is None else tuple(f"c{c}" for c in range(category_NC.shape[1]))
    return Dataset(
        name="in memory",
        num_users=num_users,
        num_items=num_items,
        train=table(train, num_users, num_items),
        valid=table(valid, num_users, num_items),
        test=table(test, num_users, num_items),
        category_NC=category_NC,
        category_names=names,
        category_kind="genres",
        user_ids=tuple(range(num_users)),
        item_ids=tuple(range(num_items)),
        item_titles=None,
        item_fields={},
        user_fields={},
        knowledge=None,
        clock=None,
        split="random",
        min_rating=4.0,
        min_interactions=1,
        seed=0,
    )


def tiny_items(user):
    """What a user takes: mostly items of one residue modulo 3, and a few others."""
    own = [i for i in range(NUM_ITEMS) if i % 3 == user % 3 and (i // 3 + user) % 4]
    return own + [i for i in range(NUM_ITEMS) if (7 * user + 5 * i) % 17 == 0 and i not in own]


def tiny_categories(item):
    """The category numbers of an item: one or two of three."""
    return sorted({item % 3, (item // 7) % 3})


@pytest.fixture
def make_interactions():
    return table


@pytest.fixture
def make_dataset():
    return dataset


@pytest.fixture
def tiny():
    """24 users, 30 items, 3 categories; user 0 has one training item, item 29 none at all."""
    train, valid, test = [], [], []
    for user in range(NUM_USERS):
        items = [i for i in tiny_items(user) if i != 29]
        items = items[user % 5 :] + items[: user % 5]
        test += [(user, i) for i in items[:2]]
        valid += [(user, i) for i in items[2:4]]
        train += [(user, i) for i in (items[4:5] if user == 0 else items[4:])]
    category_NC = torch.zeros(NUM_ITEMS, NUM_CATEGORIES)
    for item in range(NUM_ITEMS):
        category_NC[item, tiny_categories(item)] = 1.0
    category_NC /= category_NC.sum(1, keepdim=True)
    return dataset(train, valid, test, NUM_USERS, NUM_ITEMS, category_NC)


@pytest.fixture
def tiny_folder(tmp_path):
    """A data-set folder with the same interactions, to be split by ``load``."""
    folder = tmp_path / "tiny-folder"
    folder.mkdir()
    pairs = [(u, i) for u in range(NUM_USERS) for i in tiny_items(u)]
    interactions = {"user": [u for u, _ in pairs], "item": [i for _, i in pairs]}
    pq.write_table(pa.table(interactions), folder / "interactions.parquet")
    items = {
        "item": list(range(NUM_ITEMS)),
        "categories": [[f"c{c}" for c in tiny_categories(i)] for i in range(NUM_ITEMS)],
    }
    pq.write_table(pa.table(items), folder / "items.parquet")
    return folder


@pytest.fixture
def checkerboard():
    """Even users like even items, odd users odd items; each user's own number is withheld."""
    size = 20
    pairs = [(u, i) for u in range(size) for i in range(size) if u % 2 == i % 2]
    train = [(u, i) for u, i in pairs if u != i]
    own = [(u, u) for u in range(size)]
    return dataset(train, [], own, size, size, torch.eye(2)[torch.arange(size) % 2])


@pytest.fixture
def impressions():
    """240 labelled rows: fields of one value and of several, one row with none, values unseen.

    The label is 1 where user and item agree modulo 2, but for every seventh row.
    """
    row = torch.arange(240)
    user, item = row % 12, (row * 7 + row // 12) % 10
    label = ((user + item) % 2 == 0) ^ (row % 7 == 0)
    tags = torch.stack([1 + item % 4, torch.where(item % 3 == 0, 1 + (item + 1) % 4, PAD)], 1)
    tags[5] = PAD
    tags[10::45, 0] = 0
    fields = {"user": user + 1, "item": item + 1, "tags": tags, "hour": 1 + row % 3}
    fields["hour"][::20] = 0
    sizes = {"user": 13, "item": 11, "tags": 5, "hour": 4}
    history = torch.full((240, 3), PAD)
    history[:, 1:] = torch.stack([1 + (item + 2) % 10, 1 + (item + user) % 10], 1)
    history[3] = PAD
    return Impressions(user, fields, label.float(), sizes, history)


@pytest.fixture
def ratings():
    """45 ratings from 1 to 5 of 12 users and 10 items; user 11 gave none, item 9 got none."""
    pair = torch.arange(11 * 9)
    pair = pair[(pair * pair + pair) % 11 > 2]
    user, item = pair // 9, pair % 9
    rating = 1.0 + (user * item + user + item // 2) % 5
    return Interactions(user, item, 12, 10, rating=rating)
