"""Every chapter's code cells run in order in one namespace, and the names it quotes exist."""

import importlib
import os
import re
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pytest
import torch

BOOK = Path(__file__).parent.parent / "book"
PAGES = sorted(BOOK.glob("*.md"))
RUN = BOOK.parent / "notebooks" / "_run" / "exp.ipynb"  # `make book` leaves the executed run here


def code_cells(text):
    """(line, code) of each {code-cell} of a MyST page; options (:tags: ...) are left out.

    The fence is three or more backticks or colons; its first line's number counts from 1.
    """
    cells, lines, i = [], text.splitlines(), 0
    while i < len(lines):
        opening = re.match(r"(`{3,}|:{3,})\{code-cell\}", lines[i])
        i += 1
        if not opening:
            continue
        first = i
        while lines[i].strip() != opening[1]:
            i += 1
        body = lines[first:i]
        if body and body[0] == "---":  # options as a YAML block
            body[: body.index("---", 1) + 1] = [""] * (body.index("---", 1) + 1)
        for k, line in enumerate(body):
            if not re.match(r"\s*$|:\w[\w-]*:", line):
                break
            body[k] = ""
        cells.append((first + 1, "\n".join(body)))
    return cells


def run_page(path):
    """Run the cells of a page; the number of cells run."""
    namespace = {"__name__": "__main__", "display": print}
    cells = code_cells(path.read_text(encoding="utf-8"))
    for line, code in cells:
        # The empty lines in front make a traceback name the page's own line.
        exec(compile("\n" * (line - 1) + code, str(path), "exec"), namespace)
    return len(cells)


@pytest.mark.parametrize(
    "path", [p for p in PAGES if code_cells(p.read_text())], ids=lambda p: p.stem
)
def test_chapter_runs(path, monkeypatch, capsys):
    if "notebooks/_run" in path.read_text(encoding="utf-8") and not RUN.exists():
        pytest.skip(f"{RUN} is missing: run `make book` first")
    monkeypatch.chdir(BOOK)  # as in the build
    monkeypatch.setenv("INFOREC_RESULTS", os.fspath(BOOK.parent / "results"))
    with matplotlib.rc_context({"backend": "agg"}):
        try:
            assert run_page(path) > 0
        finally:
            plt.close("all")
            torch.set_default_dtype(torch.float32)  # a page may choose another for itself


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)
def test_quoted_names_exist(path):
    text = path.read_text(encoding="utf-8")
    missing, names = [], set(re.findall(r"`(inforec(?:\.\w+)+)", text))
    if path.stem == "notation":  # its tables leave out the leading "inforec."
        short = re.findall(r"`((?:losses|metrics|regularizers|train)(?:\.\w+)*)`", text)
        assert len(short) > 5
        names |= {f"inforec.{name}" for name in short}
    for name in sorted(names):
        try:
            resolve(name)
        except (ImportError, AttributeError):
            missing.append(name)
    for file, shown in re.findall(r"\{literalinclude\} (\S+)\n(?:.*\n)*?:pyobject: (\S+)", text):
        module = ".".join(Path(file).with_suffix("").parts[-len(Path(file).parts) + 2 :])
        try:
            resolve(f"{module}.{shown}")
        except (ImportError, AttributeError):
            missing.append(f"{file} {shown}")
    assert not missing


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)
def test_no_formula_needs_an_extension_from_the_network(path):
    """MathJax fetches these on demand; without a network all formulas of the page stay raw."""
    macros = r"\\(boldsymbol|cancel|bcancel|xcancel|color|textcolor|bbox|unicode|enclose|ce|pu)\b"
    assert re.findall(macros, path.read_text(encoding="utf-8")) == []


def resolve(name):
    """The module or object with a dotted name."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            found = getattr(found, part)
        return found
    raise ImportError(name)


def test_code_cells_are_found():
    page = """
```{code-cell} ipython3
:tags: [hide-input]

x = 1
```
text
```python
not_a_cell
```
````{code-cell}
---
tags: [remove-input]
---
y = x + 1
````
"""
    assert [(line, code.strip()) for line, code in code_cells(page)] == [
        (3, "x = 1"),
        (12, "y = x + 1"),
    ]


def test_a_failing_cell_names_the_line_of_the_page(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Title\n\n```{code-cell}\nx = 1\nassert x == 2\n```\n")
    with pytest.raises(AssertionError) as caught:
        run_page(page)
    assert caught.traceback[-1].lineno + 1 == 5
