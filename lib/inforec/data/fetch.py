"""Gets a data set from the first source that answers, verified, and all of it or nothing."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

from filelock import FileLock
from tqdm import tqdm

from inforec.data import prepare
from inforec.data.catalog import CATALOG, Entry, Source, find


class SourceError(Exception):
    """A source has nothing here, or does not answer: the next one is tried."""


def cache_folder() -> Path:
    """Where prepared data sets lie: ``INFOREC_CACHE``, or the platform's cache folder."""
    if chosen := os.environ.get("INFOREC_CACHE"):
        root = Path(chosen)
    elif sys.platform == "win32":
        root = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData/Local")) / "inforec"
    elif sys.platform == "darwin":
        root = Path.home() / "Library/Caches/inforec"
    else:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "inforec"
    return root / "data"


def fetched(name: str) -> bool:
    """Whether the data set lies prepared in the cache."""
    try:
        about = json.loads((cache_folder() / name / "dataset.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return about.get("format") == prepare.FORMAT


def fetch(name: str) -> Path:
    """Makes sure that a data set lies in the cache, and returns its folder.

    The sources of the catalogue are tried in turn. One that is absent or does not answer is passed
    over; one that answers with a wrong file stops the search.

    Raises:
        ValueError: unknown name (with the nearest ones), or a file that is truncated or altered.
        ConnectionError: no source has it; the message says what each of them answered.
        OSError: the cache cannot be written; the message names the place.
    """
    entry = find(name)
    folder = cache_folder() / name
    if fetched(name):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    # The lock belongs to the process: it goes when the process is killed, and the half-made folder
    # that a killed process leaves has a name that nobody reads and that the next one clears.
    with FileLock(folder.parent / f".{name}.lock"):
        if fetched(name):
            return folder
        for left in folder.parent.glob(f".{name}.*partial"):
            shutil.rmtree(left, ignore_errors=True)  # a killed parent's pip may still write there
        partial = Path(tempfile.mkdtemp(".partial", f".{name}.", folder.parent))
        try:
            (partial / "raw").mkdir()
            (partial / "ready").mkdir()
            tables, source = _first(entry, partial / "raw")
            if entry.companion:
                try:
                    prepare.join_companion(tables, fetch(entry.companion))
                except ConnectionError:
                    tqdm.write(
                        f"{name}: without titles and categories, as {entry.companion} is not "
                        "to be had",
                        file=sys.stderr,
                    )
            prepare.write(tables, entry, source, partial / "ready")
            if folder.exists():
                shutil.rmtree(folder)  # of an older format
            os.replace(partial / "ready", folder)
        except OSError as error:
            if error.errno and error.filename is None:  # a full disk, said without a name
                raise OSError(error.errno, error.strerror, str(partial)) from error
            raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return folder


def where(entry: Entry) -> str:
    """In a few words: fetched already, or the source that would be tried first."""
    if fetched(entry.name):
        return "fetched"
    for source in entry.sources:
        if source.kind != "local":
            return f"download {source.address}"
        if _local_folder(entry, source):
            return "INFOREC_DATA"
    return "needs INFOREC_DATA"


def _first(entry: Entry, raw: Path) -> tuple[prepare.Tables, str]:
    """The tables from the first source that answers, and what that source was."""
    answers = []
    for source in entry.sources:
        try:
            path = _GET[source.kind](entry, source, raw)
        except SourceError as reason:
            answers.append(f"  {source.kind}: {reason}")
            continue
        for name, expected in source.files.items():
            _verify(path / name if path.is_dir() else path, expected)
        return prepare.ADAPTERS[source.adapter](path), source.address or "INFOREC_DATA"
    raise ConnectionError(
        f"{entry.name} is not to be had. What each source answered:\n"
        + "\n".join(answers)
        + f"\nThe publisher's page: {entry.publisher}"
    )


def _verify(path: Path, expected: str) -> None:
    if (found := prepare.sha256(path)) != expected:
        raise ValueError(
            f"{path.name}: the file is truncated or was altered: {path.stat().st_size:,} bytes "
            f"with SHA-256 {found}; expected SHA-256 {expected} ({path})"
        )


def _local_folder(entry: Entry, source: Source) -> Path | None:
    """The first folder of that name on INFOREC_DATA that holds a file of the source."""
    for root in filter(None, os.environ.get("INFOREC_DATA", "").split(os.pathsep)):
        folder = Path(root) / entry.name
        if any((folder / name).is_file() for name in source.files):
            return folder
    return None


def _get_local(entry: Entry, source: Source, raw: Path) -> Path:
    folder = _local_folder(entry, source)
    if folder is None:
        raise SourceError(
            f"no folder {entry.name} with {', '.join(source.files)} on INFOREC_DATA "
            f"({os.environ.get('INFOREC_DATA') or 'not set'})"
        )
    for name in source.files:
        if not (folder / name).is_file():
            raise ValueError(f"{folder / name} is missing; {folder} has only part of the files")
    return folder


def _get_wheel(entry: Entry, source: Source, raw: Path) -> Path:
    """Lets pip download a package as a file; nothing of it is installed or run."""
    (name,) = source.files
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--disable-pip-version-check", "--no-input", "--retries", "2", "--timeout", "20"]
    # pip is quiet, because its log would put the reader's index address into notebooks. The bar
    # shows how much lies in the folder that pip is told to work in.
    with (
        subprocess.Popen(
            [*command, "--quiet", "--dest", str(raw), source.address],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={**os.environ, "TMPDIR": str(raw), "TEMP": str(raw), "TMP": str(raw)},
        ) as pip,
        tqdm(total=source.size, unit="B", unit_scale=True, desc=name, leave=False) as bar,
    ):
        while True:
            try:
                _, log = pip.communicate(timeout=0.1)
                bar.update((source.size if pip.returncode == 0 else bar.n) - bar.n)
                break
            except subprocess.TimeoutExpired:
                bar.update(min(_size(raw), source.size) - bar.n)
            except BaseException:
                pip.kill()
                raise
    if pip.returncode or not (raw / name).is_file():
        lines = [line for line in log.splitlines() if line.startswith("ERROR")]
        reason = lines[-1] if lines else log.strip()[-300:]
        raise SourceError(f"pip could not download {source.address}: {reason}")
    return raw / name


def _size(folder: Path) -> int:
    """Bytes in a folder in which another process creates and removes files."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:
            continue
    return total


def _get_archive(entry: Entry, source: Source, raw: Path) -> Path:
    (name,) = source.files
    with (
        _asked(source, urllib.request.urlopen, source.address, timeout=20) as answer,
        open(raw / name, "wb") as file,
    ):
        size = int(answer.headers.get("Content-Length") or 0) or None
        with tqdm(total=size, unit="B", unit_scale=True, desc=name, leave=False) as bar:
            while chunk := _asked(source, answer.read, 1 << 16):
                file.write(chunk)
                bar.update(len(chunk))
        if size not in (None, file.tell()):
            raise SourceError(f"{source.address} broke off after {file.tell():,} of {size:,} bytes")
    return raw / name


def _asked(source: Source, function, *arguments, **options):
    """What the network gives; its errors are the source's, those of the disk are not."""
    try:
        return function(*arguments, **options)
    except (OSError, http.client.HTTPException) as error:
        raise SourceError(f"{source.address} does not answer: {error}") from error


_GET = {"local": _get_local, "wheel": _get_wheel, "archive": _get_archive}

__all__ = ["CATALOG", "cache_folder", "fetch", "fetched", "where"]
