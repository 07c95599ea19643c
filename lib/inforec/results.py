"""Records: one JSON file a run, written whole or not at all, found again by its configuration.

Every file is written under another name and renamed when it is whole, so a process may be killed at
any moment. A record is also forced to the disk before :func:`write` returns: what was reported as
written outlives a power cut. Checkpoints, weights and lists are not, because they can be made
again; sums in every file tell one that was cut short or altered.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import hashlib
import html
import io
import json
import math
import os
import platform
import statistics
import subprocess
import tempfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

import inforec
from inforec.memory import out_of_memory

FORMAT = 1  # raised when a change of the code makes old records incomparable


@dataclass
class Record:
    """What one run was, what it reached, what it cost and where it was made.

    Attributes:
        config: the whole configuration, the model's hyper-parameters included.
        run_id: 12 hexadecimal digits, a hash of the configuration.
        study: the folder the record belongs to.
        valid: validation metrics of the chosen model, by ``name@K``.
        test: its test metrics.
        law: what the law says over all items, at the run's temperature, in nats: ``nll_train``,
            ``nll_valid`` and ``nll_test`` (mean of -log Q_u(i+) over the interactions),
            ``entropy`` (mean over users) and, where there are categories, ``category_kl``. It is
            empty for closed forms, whose scores are no logits.
        users: metrics of single users on the test split, (U,) each, NaN where undefined; kept for
            the runs that a paired test compares.
        history: one entry an epoch (:func:`inforec.train.fit`); empty where the model was trained
            by another run, which differs in its reranker only.
        cost: seconds (since the start, or since the run was resumed), seconds_per_epoch,
            seconds_evaluation, peak_memory_mib (on the CPU: of the process), parameters, epochs.
        provenance: commit, dirty, date, versions, device, threads, data hash, seed; ``trained``,
            the commit at which the weights were trained, where they were found.
        arrays: ``top_UK``, the lists on the test split, and ``law_UC``, Q_u over categories; of a
            click-through model ``logit_E`` and ``label_E`` of the test split, of a rating model
            ``rating_E``, its predictions. They are kept in a file beside the record, which is not
            committed.
        found: whether the record was found rather than made by this call.
    """

    config: dict
    run_id: str
    study: str
    valid: dict[str, float]
    test: dict[str, float]
    history: list[dict]
    cost: dict[str, float]
    provenance: dict
    law: dict[str, float] = field(default_factory=dict)
    users: dict[str, np.ndarray] = field(default_factory=dict, repr=False)
    arrays: dict[str, np.ndarray] | None = field(default=None, repr=False)
    found: bool = field(default=False, repr=False)

    @property
    def top(self) -> np.ndarray:
        """(U, K) int64: each user's list on the test split, best first, -1 for an empty place.

        Raises:
            ValueError: if the record came without its lists.
        """
        if self.arrays is not None and "top_UK" not in self.arrays:
            raise ValueError(
                f"run {self.run_id} of {self.config['model']!r} makes no lists: expected a run of "
                "a model that ranks items"
            )
        if self.arrays is None:
            raise ValueError(
                f"the lists of run {self.run_id} are not stored beside its record: "
                "run its configuration with results=None to make them again"
            )
        return self.arrays["top_UK"]


def root() -> Path:
    """Where the studies are: INFOREC_RESULTS, else results/ of the checkout, else ./results."""
    if os.environ.get("INFOREC_RESULTS"):
        return Path(os.environ["INFOREC_RESULTS"])
    checkout = Path(inforec.__file__).resolve().parents[2]
    return (checkout if (checkout / "pyproject.toml").exists() else Path.cwd()) / "results"


def run_id(config: dict) -> str:
    """A hash of a configuration: equal configurations, equal names."""
    text = json.dumps({"format": FORMAT, **config}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def prepare(folder: Path | str) -> None:
    """Make a study's folder, see that it can be written, and remove what killed writers left in it.

    Raises:
        OSError: naming the folder, if nothing can be written there.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(
            error.errno,
            f"results={str(folder)!r}: expected a folder that can be written: {error.strerror}",
        ) from error
    for left in folder.glob(f".{'?' * 12}.*.tmp"):
        with contextlib.suppress(OSError), open(left, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails where its writer lives
            left.unlink()


def write(record: Record, folder: Path | str) -> Path:
    """Write ``<run_id>.json`` and, beside it, its arrays; whole files appear, or none.

    The record holds a sum of itself and one of its arrays, so that :func:`read` never gives altered
    numbers, nor the lists of another run.

    Returns:
        The path of the record, which is on the disk and not only on its way there.

    Raises:
        OSError: naming the file, if it cannot be written; then the folder is as it was.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{record.run_id}.json"
    body = {
        name: getattr(record, name)
        for name in ("run_id", "study", "config", "valid", "test", "law", "cost", "provenance")
    }
    # Thousands of numbers: one string a metric, not one line a user.
    body["users"] = {
        name: " ".join(f"{value:.4f}" for value in values) for name, values in record.users.items()
    }
    body["history"] = record.history
    with contextlib.ExitStack() as renames:  # the record is the last to get its name
        temporary = renames.enter_context(_Replacing(path))
        if record.arrays is not None:
            beside = renames.enter_context(_Replacing(path.with_suffix(".npz")))
            with open(beside, "wb") as file:
                np.savez_compressed(file, **record.arrays)
            body["arrays"] = hashlib.sha256(Path(beside).read_bytes()).hexdigest()
        body = json.loads(json.dumps(_nan_to_null(body), allow_nan=False))
        body["digest"] = _digest(body)
        with open(temporary, "wb") as file:
            file.write((json.dumps(body, indent=1) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())
    handle = os.open(folder, os.O_RDONLY)
    with contextlib.suppress(OSError):  # some file systems cannot do this for a folder
        os.fsync(handle)
    os.close(handle)
    return path


def save_tensors(state: dict, path: Path) -> None:
    """torch.save to a whole file or none.

    Raises:
        OSError: naming the file, if it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _Replacing(path) as temporary, open(temporary, "wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:  # torch hides what the file said
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None


def load_tensors(path: Path, device: torch.device) -> dict:
    """What :func:`save_tensors` wrote. torch.load itself compares no sums: a flipped bit in a
    weight would pass.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: naming the file, if it is not as it was written.
    """
    with open(path, "rb") as file:
        try:
            if (part := zipfile.ZipFile(file).testzip()) is not None:
                raise zipfile.BadZipFile(f"{part} differs from its checksum")
            file.seek(0)
            return torch.load(file, map_location=device, weights_only=True)
        except Exception as error:  # a damaged zip file raises almost anything
            if out_of_memory(error):
                raise
            raise ValueError(
                f"{path} is not a readable checkpoint: delete it to train from the start"
            ) from error


def read(path: Path | str) -> Record:
    """Read one record; without its arrays where the file beside it does not hold those it had.

    Raises:
        ValueError: naming the file, if it is not a record, or was altered after it was written.
    """
    path = Path(path)
    try:
        body = json.loads(path.read_text())
        # Records made before there were sums have neither.
        digest, arrays_digest = body.pop("digest", None), body.get("arrays")
        if digest is not None and digest != _digest(body):
            raise ValueError("it was altered")
        body.pop("arrays", None)
        validations = [entry["valid"] for entry in body["history"] if "valid" in entry]
        for metrics in (body["valid"], body["test"], body.get("law", {}), *validations):
            metrics |= {name: math.nan for name, value in metrics.items() if value is None}
        record = Record(**body)
        record.users = {
            name: np.array(text.split(), dtype=float) for name, text in record.users.items()
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is not a record of inforec: {error}; delete it to run its configuration again"
        ) from error
    arrays = path.with_suffix(".npz")
    with contextlib.suppress(FileNotFoundError):
        raw = arrays.read_bytes()
        if digest is None or arrays_digest == hashlib.sha256(raw).hexdigest():
            try:
                with np.load(io.BytesIO(raw), allow_pickle=False) as stored:
                    record.arrays = dict(stored)
            except (EOFError, OSError, ValueError, zipfile.BadZipFile) as error:
                raise ValueError(f"{arrays} is damaged; delete it and its record") from error
    return record


def find(config: dict, folder: Path | str) -> Record | None:
    """The record of an equal configuration in ``folder``, or None.

    Raises:
        ValueError: naming the file, if what stands there is no record or that of another run.
    """
    path = Path(folder) / f"{run_id(config)}.json"
    if not path.exists():
        return None
    record = read(path)
    if run_id(record.config) != path.stem:
        raise ValueError(
            f"{path} holds the record of run {run_id(record.config)}: expected that of "
            f"{path.stem}; delete or rename it"
        )
    record.found = True
    return record


def load(folder: Path | str | None = None) -> list[Record]:
    """All records below ``folder`` (by default :func:`root`), in the order of study and run_id."""
    paths = sorted(Path(folder if folder is not None else root()).rglob("*.json"))
    return [read(path) for path in paths]


_ABSENT = object()


def _entry(config: dict, name: str):
    for part in name.split("__"):
        config = config.get(part, _ABSENT) if isinstance(config, dict) else _ABSENT
    return config


def select(records: Iterable[Record], **wanted) -> list[Record]:
    """The records whose configuration has these values; ``options__dim`` looks inside ``options``.

    Raises:
        ValueError: for a name that no configuration has.
    """

    records = list(records)
    for name, want in wanted.items():
        held = [(record, _entry(record.config, name)) for record in records]
        if records and all(value is _ABSENT for _, value in held):
            raise ValueError(f"{name!r}: no configuration has it: expected the name of a setting")
        records = [record for record, value in held if value is not _ABSENT and value == want]
    return records


def by_setting(records: Iterable[Record]) -> list[list[Record]]:
    """The records in groups that differ in nothing but the seed, each in the order of its seeds."""
    groups = {}
    for record in records:
        rest = {name: value for name, value in record.config.items() if name != "seed"}
        groups.setdefault(run_id(rest), []).append(record)
    return [sorted(group, key=lambda record: record.config["seed"]) for group in groups.values()]


def mean_sd(records: Iterable[Record], metric: str, on: str = "test") -> tuple[float, float]:
    """Mean and sample standard deviation of a metric over records; NaN spread for a single one.

    Raises:
        ValueError: if there are no records.
    """
    values = [getattr(record, on)[metric] for record in records]
    if not values:
        raise ValueError(f"no records to average {metric!r} over: expected at least one")
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else math.nan


NAMES = {
    "itemknn": "ItemKNN",
    "ease": "EASE",
    "mf": "MF",
    "lightgcn": "LightGCN",
    "ngcf": "NGCF",
    "sgl": "SGL",
    "simgcl": "SimGCL",
    "xsimgcl": "XSimGCL",
    "directau": "DirectAU",
    "cgi": "CGI",
    "dae": "DAE",
    "cdae": "CDAE",
    "multvae": "Mult-VAE",
    "lr": "LR",
    "poly2": "Poly2",
    "fm": "FM",
    "ffm": "FFM",
    "nfm": "NFM",
    "widedeep": "Wide & Deep",
    "deepfm": "DeepFM",
    "din": "DIN",
    "bst": "BST",
    "biasedmf": "BiasedMF",
    "autorec": "AutoRec",
    "implicit-als": "implicit ALS",
    "recbole-ease": "RecBole EASE",
    "recbole-bpr": "RecBole BPR",
    "recbole-lightgcn": "RecBole LightGCN",
    "recbole-ngcf": "RecBole NGCF",
    "recbole-sgl": "RecBole SGL",
    "recbole-cdae": "RecBole CDAE",
    "recbole-multivae": "RecBole MultiVAE",
    "recbole-lr": "RecBole LR",
    "recbole-fm": "RecBole FM",
    "recbole-ffm": "RecBole FFM",
    "recbole-nfm": "RecBole NFM",
    "recbole-widedeep": "RecBole WideDeep",
    "recbole-deepfm": "RecBole DeepFM",
    "recbole-din": "RecBole DIN",
}


LOSS_NAMES = {"bpr": "BPR", "logistic": "logistic", "mse": "square"}


def method(record: Record) -> str:
    """The row of a table that a run belongs to: model, loss if in LOSS_NAMES, terms, layer."""
    config = record.config
    parts = [NAMES.get(config["model"], config["model"])]
    if config.get("loss") in LOSS_NAMES:
        parts.append(LOSS_NAMES[config["loss"]])
    if config.get("alpha") or config.get("beta"):
        parts.append("terms")
    if config.get("layer_alpha"):
        parts.append("layer")
    return " + ".join(parts)


def over_seeds(records: Iterable[Record], metric: str) -> np.ndarray:
    """(U,) a metric of every user on the test split, the mean over the records, one a seed.

    Raises:
        ValueError: if there are no records, or one of them came without values of single users.
    """
    records = list(records)
    for record in records:
        if metric not in record.users:
            raise ValueError(
                f"run {record.run_id} holds no values of single users for {metric!r}: run its "
                "configuration with per_user=True"
            )
    if not records:
        raise ValueError(f"no records to average {metric!r} over: expected at least one")
    return np.mean([record.users[metric] for record in records], axis=0)


class Table:
    """A small table that shows itself in a notebook, in a page and in a terminal.

    Args:
        header: the column titles.
        rows: one list of cells a row; numbers are shown with ``digits`` decimals, NaN as a dash.
        digits: decimals of the numbers.
    """

    def __init__(self, header: list[str], rows: list[list], digits: int = 4):
        self.header = header
        self.rows = [[self._text(cell, digits) for cell in row] for row in rows]

    @staticmethod
    def _text(cell, digits: int) -> str:
        if isinstance(cell, float):
            return "–" if math.isnan(cell) else f"{cell:.{digits}f}"
        return str(cell)

    def __repr__(self) -> str:
        lines = [self.header, *self.rows]
        widths = [max(len(line[column]) for line in lines) for column in range(len(self.header))]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if column == 0 else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        )

    def _repr_html_(self) -> str:
        def line(cells, tag):
            return (
                "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"
            )

        body = "\n".join(line(row, "td") for row in self.rows)
        return (
            f'<table class="table">\n<thead>{line(self.header, "th")}</thead>\n'
            f"<tbody>\n{body}\n</tbody>\n</table>"
        )


def provenance(*, device: torch.device, data: str, seed: int) -> dict:
    """Where and from what a run was made, so that each number can be traced."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    changes = _git("status", "--porcelain", "--untracked-files=no", "--", "lib")
    return {
        "commit": commit(),
        "dirty": None if changes is None else bool(changes),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": {
            "inforec": inforec.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
        "device": name,
        "threads": torch.get_num_threads(),
        "data": data,
        "seed": seed,
    }


def commit() -> str | None:
    """The commit of the checkout that this package lies in; None without git or checkout."""
    return _git("rev-parse", "HEAD")


class _Replacing:
    """Gives a temporary path beside ``path``; renames it on success, removes it on failure.

    The temporary file is locked until then. The lock goes with its process, and so tells
    :func:`prepare` what a killed one left from what a live one is writing.
    """

    def __init__(self, path: Path):
        self.path = path

    def __enter__(self) -> str:
        while True:
            self.handle, self.temporary = tempfile.mkstemp(
                dir=self.path.parent, prefix=f".{self.path.name}.", suffix=".tmp"
            )
            with contextlib.suppress(OSError):  # a file system without locks: nothing is removed
                fcntl.flock(self.handle, fcntl.LOCK_EX)
            if os.path.exists(self.temporary):
                break
            os.close(self.handle)  # removed before it was locked
        os.chmod(self.temporary, 0o644)
        return self.temporary

    def __exit__(self, kind, error, trace):
        try:
            if kind is None:
                os.replace(self.temporary, self.path)
        finally:
            os.close(self.handle)
            Path(self.temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename is None:
            raise OSError(error.errno, error.strerror, str(self.path)) from error


def _digest(body: dict) -> str:
    """SHA-256 of what a record says, however its text is spaced."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _nan_to_null(value):
    if isinstance(value, dict):
        return {key: _nan_to_null(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_nan_to_null(entry) for entry in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _git(*arguments: str) -> str | None:
    """The answer of git about the checkout this package lies in; None without git or checkout."""
    checkout = Path(inforec.__file__).resolve().parents[2]
    if not (checkout / "pyproject.toml").exists():
        return None  # installed elsewhere: a repository around it would be somebody else's
    try:
        answer = subprocess.run(
            ["git", *arguments],
            cwd=checkout,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip()


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
