"""The experiment notebook from the shell: both forms of papermill, and bad parameters."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from inforec import results
from inforec.experiment import LOSSES
from inforec.models import REGISTRY

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "exp.ipynb"
QUICK = ["-p", "epochs", "2", "-p", "k", "10"]


def papermill(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run papermill in ``folder``, stdin closed and stdout piped, as a redirection does."""
    environment = {**os.environ, "INFOREC_RESULTS": str(folder / "results")}
    return subprocess.run(
        [sys.executable, "-m", "papermill", str(NOTEBOOK), *arguments],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


def cells_with(tag: str) -> list:
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    return [cell for cell in cells if tag in cell.metadata.get("tags", [])]


@pytest.mark.slow
def test_piped_form_prints_the_executed_notebook_and_leaves_a_record(tmp_path):
    done = papermill(tmp_path, "-p", "alpha", "0.2", *QUICK)
    assert done.returncode == 0, done.stderr
    executed = nbformat.reads(done.stdout, as_version=4)
    injected = [c for c in executed.cells if "injected-parameters" in c.metadata.get("tags", [])]
    assert "alpha = 0.2" in injected[0].source
    alphas = [r.config["alpha"] for r in results.load(tmp_path / "results" / "exp")]
    assert alphas.count(0.2) == 1


@pytest.mark.slow
def test_form_with_an_output_path_leaves_a_record(tmp_path):
    done = papermill(tmp_path, "out.ipynb", "-p", "alpha", "0.3", "-p", "beta", "0.01", *QUICK)
    assert done.returncode == 0, done.stderr
    executed = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    assert all(cell.execution_count for cell in executed.cells if cell.cell_type == "code")
    runs = results.load(tmp_path / "results" / "exp")
    assert {(r.config["model"], r.config["alpha"], r.config["beta"]) for r in runs} == {
        ("lightgcn", 0.3, 0.01),
        ("lightgcn", 0.0, 0.0),
        ("popularity", 0.0, 0.0),
        ("ease", 0.0, 0.0),
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("alpha", "-1", "alpha=-1: expected a finite number at least 0"),
        (
            "model",
            "nosuch",
            "model='nosuch': expected one of popularity, itemknn, ease, mf, lightgcn",
        ),
        ("dataset", "ml-10k", "ml-100k"),
    ],
)
def test_bad_parameter_stops_with_one_sentence(tmp_path, name, value, sentence):
    done = papermill(tmp_path, "out.ipynb", "-p", name, value)
    assert done.returncode != 0
    assert sentence in done.stderr
    executed = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    errors = [o for c in executed.cells for o in c.get("outputs", []) if o.output_type == "error"]
    assert len(errors) == 1
    assert len(errors[0].traceback) == 1 and sentence in errors[0].traceback[0]
    assert not (tmp_path / "results").exists()


def test_parameters_are_typed_and_explained():
    (cell,) = cells_with("parameters")
    for line in cell.source.splitlines():
        declared, comment = line.split("  # ")
        assert comment
        assert declared.split(": ")[1].split(" = ")[0] in {"str", "float", "int"}
    (models,) = (line for line in cell.source.splitlines() if line.startswith("model: "))
    examples = models.split("  # ")[1].removesuffix(": all are in inforec.models.REGISTRY")
    assert set(examples.split(", ")) <= set(REGISTRY)
    (known,) = (line for line in cell.source.splitlines() if line.startswith("loss: "))
    assert set(re.findall(r"\w+", known.split("  # ")[1])) - {"or"} == set(LOSSES)


def test_stored_outputs_are_whole_and_the_numbers_are_compared():
    cells = [c for c in json.loads(NOTEBOOK.read_text())["cells"] if c["cell_type"] == "code"]
    assert [c["execution_count"] for c in cells] == list(range(1, len(cells) + 1))
    compared = [
        "".join(o["data"]["text/plain"])
        for c in cells
        if "nbval-ignore-output" not in c["metadata"].get("tags", [])
        for o in c["outputs"]
    ]
    assert any("44,265" in text for text in compared)
    assert any("popularity      0.188    0.133" in text for text in compared)
