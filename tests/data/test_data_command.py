"""``python -m inforec.data``."""

import subprocess
import sys

from inforec.data.__main__ import main
from inforec.data.catalog import CATALOG


def test_the_list_names_every_data_set(local, cache, capsys):
    assert main([]) == 0
    text = capsys.readouterr().out
    for name, entry in CATALOG.items():
        assert name in text and entry.licence in text and f"{entry.counts['users']:,}" in text
    assert "download recbole==1.2.1" in text and "needs INFOREC_DATA" in text
    tiny = next(line for line in text.splitlines() if line.startswith("tiny"))
    assert tiny.split() == ["tiny", "2", "3", "4", "INFOREC_DATA"]


def test_fetch_by_name(local, cache, capsys):
    assert main(["fetch", "tiny"]) == 0
    assert capsys.readouterr().out == f"tiny: {cache / 'tiny'}\n"
    main(["list"])
    assert "4  fetched" in capsys.readouterr().out


def test_an_unknown_name_gets_the_nearest_and_status_2(cache):
    done = subprocess.run(
        [sys.executable, "-m", "inforec.data", "fetch", "gowala"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("unknown data set 'gowala'; the nearest are: gowalla")
    assert "Traceback" not in done.stderr
    assert not cache.exists()


def test_a_failed_fetch_gives_status_1(local, cache, capsys):
    (local / "train.parquet").write_bytes(b"")
    assert main(["fetch", "tiny"]) == 1
    assert "train.parquet: the file is truncated or was altered" in capsys.readouterr().err
