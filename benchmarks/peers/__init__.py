"""Other libraries on the rows that inforec trains on, each by a Python of its own.

RecBole 1.2.1 runs with the versions in recbole.txt, in .venv-recbole at the root of the repository,
LensKit with those in lenskit.txt, in .venv-lenskit (``make peers``). They read the split from files
in RecBole's pre-split form, written here; RecBole's lists and logits are measured by inforec's
functions. SELFRec is in no package registry, so it is not compared.

Shape letters: E rows, U users, K list length.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import torch

from inforec.data import Clicks, Dataset
from inforec.types import PAD, Impressions

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("train", "valid", "test")
SCORES_HELD = 2**24  # at a time, in RecBole's evaluation as in inforec's; its default is 4096
NAMES = {"user": "user_id", "item": "item_id"}
OF_ITEMS = ("year", "genre")  # fields that say something of the item


def write_dataset(dataset: Dataset, folder: Path) -> None:
    """rows.train.inter, rows.valid.inter, rows.test.inter: users and items by inforec's numbers."""
    for on in PARTS:
        part = getattr(dataset, on)
        columns = {"user_id:token": part.user.numpy(), "item_id:token": part.item.numpy()}
        _write(columns, folder / f"rows.{on}.inter")


def write_clicks(clicks: Clicks, folder: Path) -> None:
    """The same of labelled rows: fields by inforec's numbers, where 0 is what training never saw.

    With histories, the fields OF_ITEMS go to rows.item instead, since RecBole's DIN reads
    nothing but the features of items, of the one shown and of those in the history.
    """
    for on in PARTS:
        part: Impressions = getattr(clicks, on)
        columns = {}
        for name, number in part.fields.items():
            if part.history is None or name not in OF_ITEMS:
                columns |= _column(NAMES.get(name, name), number.numpy())
        if part.history is not None:
            columns |= _column("item_id_list", part.history.numpy())
        columns["label:float"] = part.label.numpy()
        _write(columns, folder / f"rows.{on}.inter")
    if clicks.train.history is not None:
        item_E, first_E = np.unique(clicks.train.fields["item"].numpy(), return_index=True)
        columns = {"item_id:token": item_E}
        for name in OF_ITEMS:
            if name in clicks.train.fields:
                columns |= _column(name, clicks.train.fields[name].numpy()[first_E])
        _write(columns, folder / "rows.item")


def some(clicks: Clicks, rows: int) -> Clicks:
    """That many training rows, drawn at random, and an eighth as many of the other two sets."""
    generator = torch.Generator().manual_seed(0)
    parts = {}
    for on, size in (("train", rows), ("valid", rows // 8), ("test", rows // 8)):
        part = getattr(clicks, on)
        parts[on] = drawn(part, torch.randperm(len(part), generator=generator)[:size])
    return replace(clicks, **parts)


def drawn(part: Impressions, index: torch.Tensor) -> Impressions:
    """The rows at ``index``."""
    return replace(
        part,
        user=part.user[index],
        fields={name: tensor[index] for name, tensor in part.fields.items()},
        label=part.label[index],
        history=None if part.history is None else part.history[index],
    )


def _column(name: str, number: np.ndarray) -> dict[str, object]:
    if number.ndim == 1:
        return {f"{name}:token": number}
    lists = [" ".join(str(value) for value in row if value != PAD) for row in number.tolist()]
    return {f"{name}:token_seq": lists}


def _write(columns: dict, path: Path) -> None:
    options = pa.csv.WriteOptions(delimiter="\t", quoting_style="none", quoting_header="none")
    pa.csv.write_csv(pa.table(columns), path, options)


def recbole(
    model: str, data: Dataset | Clicks, options: dict, *, seed: int, k: int = 20, threads: int = 1
) -> tuple[dict, dict[str, np.ndarray]]:
    """Train RecBole's ``model`` on the training rows, choose its epoch on the validation rows.

    Args:
        model: its name in RecBole.
        data: the rows.
        options: RecBole's settings; all others keep its defaults, but that evaluation handles
            SCORES_HELD scores at a time.
        seed: of RecBole.
        k: list length; it validates on NDCG@k, or on AUC for labelled rows.
        threads: of PyTorch and NumPy.

    Returns:
        What the worker prints, and its arrays: ``valid_top_UK`` and ``test_top_UK`` (-1 for users
        without held-out items), or ``valid_logit_E`` and ``test_logit_E``.

    Raises:
        RuntimeError: with what RecBole wrote, if it fails.
    """
    clicks = isinstance(data, Clicks)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "rows").mkdir()
        (write_clicks if clicks else write_dataset)(data, folder / "rows")
        settings = {
            "data_path": temporary,
            "checkpoint_dir": str(folder / "saved"),
            "benchmark_filename": list(PARTS),
            "load_col": None,
            "seed": seed,
            "use_gpu": False,
            "show_progress": False,
        }
        if clicks:
            rows = {"mode": "labeled", "order": "TO", "group_by": None}
            settings |= {"eval_args": {**rows, "split": {"LS": "valid_and_test"}}}
            settings |= {"metrics": ["AUC", "LogLoss"], "valid_metric": "AUC"}
            settings |= {"train_neg_sample_args": None}
            if data.history:
                settings |= {"alias_of_item_id": ["item_id_list"]}
                settings |= {"MAX_ITEM_LIST_LENGTH": data.history}
        else:
            settings |= {"metrics": ["NDCG"], "topk": [k], "valid_metric": f"NDCG@{k}"}
            settings |= {"eval_batch_size": SCORES_HELD}
        settings |= options
        given = {
            "model": model,
            "clicks": clicks,
            "settings": settings,
            "threads": threads,
            "users": 0 if clicks else data.num_users,
            "k": k,
            "arrays": str(folder / "arrays.npz"),
        }
        answer = _worker("recbole", given, folder)
        with np.load(folder / "arrays.npz") as stored:
            arrays = dict(stored)
    if clicks:
        for on in PARTS[1:]:
            label_E = torch.from_numpy(arrays[f"{on}_label_E"])
            if not torch.equal(label_E, getattr(data, on).label):
                raise RuntimeError(f"RecBole's {model} changed the order of the {on} rows")
    return answer, arrays


def lenskit(model: str, data: Dataset, options: dict, *, k: int = 20, threads: int = 1) -> dict:
    """What lenskit_worker.py measures of LensKit's ``model``, "FlexMF" or "EASE".

    Raises:
        RuntimeError: with what LensKit wrote, if it fails.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_dataset(data, folder)
        given = {"model": model, "options": options, "k": k, "threads": threads}
        return _worker("lenskit", given, folder)


def python(library: str) -> Path:
    """Where the Python of a library is, once ``make peers`` has installed it."""
    return ROOT / f".venv-{library}" / "bin" / "python"


def _worker(library: str, given: dict, folder: Path) -> dict:
    """What the worker of a library prints, run in ``folder``.

    Raises:
        RuntimeError: with what it wrote, if it fails, or if it is not installed.
    """
    if not python(library).exists():
        raise RuntimeError(
            f"{python(library)} is not there: expected the peers, which `make peers` installs"
        )
    done = subprocess.run(
        [python(library), "-W", "ignore", Path(__file__).with_name(f"{library}_worker.py")],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": str(given["threads"])},
        input=json.dumps(given),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{library}'s {given['model']} failed:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])
