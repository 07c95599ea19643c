"""The set-up says one thing in all its files, and the book shows the run that was made here."""

import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def load_book_extension():
    path = ROOT / "book/_ext/inforec_book.py"
    spec = importlib.util.spec_from_file_location("inforec_book", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def pages() -> list[str]:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    chapters = [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    return [toc["root"], *chapters]


def dry_run(*arguments: str) -> str:
    answer = subprocess.run(
        ["make", "--dry-run", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return answer.stdout


# Versions


def test_constraints_are_names_with_exact_versions_and_no_addresses():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    entries = [line for line in lines if not line.startswith("#")]
    assert len(entries) > 50
    for entry in entries:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", entry), entry


@pytest.mark.parametrize("extra", [None, *EXTRAS])
def test_constraints_satisfy_pyproject(extra):
    pins = {canonicalize_name(name): version for name, version in constraints().items()}
    for text in EXTRAS[extra] if extra else PROJECT["dependencies"]:
        requirement = Requirement(text)
        version = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{text}, but constraints.txt has {version}"


def test_conda_and_make_install_the_same():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python = next(d for d in environment["dependencies"] if str(d).startswith("python="))
    (pip,) = [d["pip"] for d in environment["dependencies"] if isinstance(d, dict)]
    makefile = (ROOT / "Makefile").read_text()
    assert SpecifierSet(PROJECT["requires-python"]).contains(python.removeprefix("python="))
    assert pip == ["-c constraints.txt", f"-e .[{','.join(EXTRAS)}]"]
    assert f"EXTRAS := {','.join(EXTRAS)}\n" in makefile
    pinned = makefile.count("--constraint constraints.txt")
    pinned += makefile.count("--requirement $<")  # not into .venv
    assert pinned == makefile.count("pip install")


def test_no_file_of_the_setup_names_where_packages_come_from():
    for name in ["pyproject.toml", "constraints.txt", "environment.yml", "Makefile", ".ci/run"]:
        text = (ROOT / name).read_text()
        assert not re.search(r"index-url|find-links|trusted-host", text), name
    assert not (ROOT / "uv.lock").exists()


def test_one_version():
    import inforec

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert PROJECT["version"] == inforec.__version__ == citation["version"]


def test_one_repository_address():
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert config["repository"]["url"] == citation["repository-code"]


# Make


def test_make_offers_what_the_readme_names():
    help_text = subprocess.run(
        ["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", (ROOT / "README.md").read_text(), re.MULTILINE))
    offered = set(re.findall(r"make ([a-z-]+)", help_text))
    assert {"book", "test", "experiment", "serve"} <= named <= offered
    assert {"lint", "bench", "clean", "help"} <= offered


def test_make_passes_on_only_the_settings_that_were_given(monkeypatch):
    monkeypatch.setenv("SEED", "7")  # may mean something else to the one who set it
    for target in ["experiment", "book"]:
        lines = dry_run(target, "ALPHA=0.2").splitlines()
        (line,) = [line for line in lines if "notebooks/exp.ipynb" in line]
        assert re.findall(r"-p (\S+) (\S+)", line) == [("alpha", "'0.2'")]


def test_the_settings_of_make_are_parameters_of_the_notebook():
    settings = re.search(r"^SETTINGS := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    notebook = json.loads((ROOT / "notebooks/exp.ipynb").read_text())
    (cell,) = [
        "".join(cell["source"])
        for cell in notebook["cells"]
        if "parameters" in cell["metadata"].get("tags", [])
    ]
    parameters = set(re.findall(r"^([a-z_]+)\b.*=", cell, re.MULTILINE))
    assert {name.lower() for name in settings[1].split()} <= parameters


def test_make_test_is_the_command_of_the_readme():
    assert "pytest --nbval\n" in dry_run("test")


# The book


def test_every_page_of_the_contents_exists_and_no_other():
    sources = [*(ROOT / "book").glob("*.md"), *(ROOT / "notebooks").glob("*.ipynb")]
    found = {source.relative_to(ROOT).with_suffix("").as_posix() for source in sources}
    assert len(pages()) == len(set(pages()))
    assert set(pages()) == found


def test_the_api_page_lists_every_public_module_once():
    modules = load_book_extension().public_modules("inforec")
    files = (ROOT / "lib/inforec").rglob("[!_]*.py")
    dotted = [".".join(file.relative_to(ROOT / "lib").with_suffix("").parts) for file in files]
    assert len(modules) == len(set(modules))
    assert set(dotted) <= set(modules)
    assert modules.index("inforec.distribution") < modules.index("inforec.losses")


def test_a_notebook_that_was_not_run_stops_the_build(tmp_path):
    app = SimpleNamespace(srcdir=str(tmp_path))
    with pytest.raises(Exception, match=r"notebooks/exp has not been run.*make"):
        load_book_extension().show_executed_run(app, "notebooks/exp", ["{}"])


@pytest.fixture(scope="module")
def small_book(tmp_path_factory):
    """The book's own settings around two small pages, one of them a notebook that was run."""
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("jupyter_book")
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

    root = tmp_path_factory.mktemp("book")
    for name in ["_config.yml", "book/_ext", "book/_static", "book/references.bib"]:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).symlink_to(ROOT / name)
    (root / "_toc.yml").write_text(
        "format: jb-book\nroot: book/intro\nchapters:\n  - file: notebooks/exp\n"
    )
    (root / "book/intro.md").write_text(
        "---\njupytext: {text_representation: {extension: .md, format_name: myst}}\n"
        "kernelspec: {name: python3, display_name: Python 3}\n---\n"
        "# Small\n\n$$ H(Q) = 1 $$ (eq-h)\n\n"
        "See {eq}`eq-h` and {py:func}`inforec.regularizers.kl`.\n"
        "\n```{code-cell}\nimport sys; print('out' + 'put'); print('bar', file=sys.stderr)\n```\n"
        "\n```{eval-rst}\n.. automodule:: inforec.regularizers\n   :members:\n```\n"
    )
    heading, code = new_markdown_cell("# Run"), "print(alpha)"
    metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3"},
        "language_info": {"name": "python"},
    }
    source = new_notebook(cells=[heading, new_code_cell(code)], metadata=metadata)
    run = new_notebook(
        cells=[
            heading,
            new_code_cell(
                code,
                execution_count=1,
                outputs=[new_output("stream", name="stdout", text="seen-in-this-run\n")],
            ),
        ],
        metadata=metadata,
    )
    (root / "notebooks/_run").mkdir(parents=True)
    nbformat.write(source, root / "notebooks/exp.ipynb")
    nbformat.write(run, root / "notebooks/_run/exp.ipynb")
    answer = subprocess.run(
        [Path(sys.executable).with_name("jupyter-book"), "build", root, "-W", "-n", "--keep-going"],
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 0, answer.stderr[:4000]
    return root / "_build/html"


def test_the_book_shows_the_run_and_hands_out_the_notebook(small_book):
    page = (small_book / "notebooks/exp.html").read_text()
    download = (small_book / "_sources/notebooks/exp.ipynb").read_text()
    assert "seen-in-this-run" in page
    assert "seen-in-this-run" not in download and "print(alpha)" in download
    assert "urlpath=lab/tree/notebooks/exp.ipynb" in page


def test_pages_are_executed_without_their_progress_bars(small_book):
    page = (small_book / "book/intro.html").read_text()
    assert "output" in page and ">bar" not in page
    assert "mybinder" not in page  # the button would open a chapter as plain text


def test_the_book_needs_no_network(small_book):
    assert (small_book / "_static/tex-svg.js").stat().st_size > 1_000_000
    for page in small_book.rglob("*.html"):
        text = page.read_text()
        loaded = re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=[\"'](//|https?:)", text)
        assert loaded == [], page
    assert "tex-svg.js" in (small_book / "book/intro.html").read_text()
    remote = r"url\(\s*[\"']?(https?:)?//|@import [\"'](https?:)?//"
    for style in (small_book / "_static").rglob("*.css"):
        assert not re.search(remote, style.read_text()), style
