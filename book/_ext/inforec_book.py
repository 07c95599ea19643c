"""What this book asks of Sphinx beyond Jupyter Book: small things, one function each."""

import importlib
import pkgutil
import sys
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.fileutil import copy_asset_file

RUNS = Path("notebooks/_run")

# The API page goes from the records that parts exchange to the parts that use them.
# A module not named here comes after these, in alphabetical order.
READING_ORDER = (
    "types distribution streaming losses regularizers data models train evaluate metrics rerank "
    "significance experiment results plots symbolic"
).split()


def show_executed_run(app: Sphinx, docname: str, source: list[str]) -> None:
    """Show the executed copy of a notebook, which papermill left in notebooks/_run.

    The page keeps the notebook's own address, so its download and launch buttons lead to the
    notebook that stands in the repository.
    """
    if not docname.startswith("notebooks/"):
        return
    run = Path(app.srcdir, RUNS, docname.removeprefix("notebooks/")).with_suffix(".ipynb")
    if not run.exists():
        raise ExtensionError(f"{docname} has not been run: {RUNS / run.name} is missing. Use make")
    app.env.note_dependency(str(run))
    source[0] = run.read_text(encoding="utf-8")


def public_modules(package: str) -> list[str]:
    """The dotted names of the package's public modules, in reading order."""
    root = importlib.import_module(package)
    names = [info.name for info in pkgutil.walk_packages(root.__path__, f"{package}.")]
    names = [name for name in names if not any(p.startswith("_") for p in name.split("."))]
    rank = {part: i for i, part in enumerate(READING_ORDER)}
    return sorted(names, key=lambda name: (rank.get(name.split(".")[1], len(rank)), name))


def write_api(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put one section for each public module of inforec where book/api.md has its marker."""
    if docname != "book/api":
        return
    sections = []
    for name in public_modules("inforec"):
        level = min(name.count(".") + 1, 3)
        options = "   :members:\n   :ignore-module-all:\n"
        automodule = f"```{{eval-rst}}\n.. automodule:: {name}\n{options}```\n"
        sections.append(f"{'#' * level} {name}\n\n{automodule}")
    marker = "% The modules are written here by book/_ext.\n"
    assert marker in source[0], "book/api.md has lost its marker line"
    source[0] = source[0].replace(marker, "\n".join(sections))


def follow_reexport(app: Sphinx, env, node, contnode):
    """Let {py:func}`inforec.data.load` lead to where `load` is defined and documented."""
    module, _, name = node.get("reftarget", "").rpartition(".")
    found = getattr(sys.modules.get(module), name, None)
    if node.get("refdomain") != "py" or not module.startswith("inforec") or found is None:
        return None
    home = f"{getattr(found, '__module__', module)}.{getattr(found, '__qualname__', name)}"
    domain = env.get_domain("py")
    return domain.resolve_xref(
        env, node["refdoc"], app.builder, node["reftype"], home, node, contnode
    )


def keep_launch_for_notebooks(app: Sphinx, page: str, template, context: dict, doctree) -> None:
    """Leave the launch button only where the repository holds a notebook under that name.

    Chapters are Markdown, which the service behind the button shows as plain text.
    """
    if page in app.env.found_docs and Path(app.env.doc2path(page)).suffix != ".ipynb":
        context["header_buttons"] = [
            button
            for button in context["header_buttons"]
            if button.get("label") != "launch-buttons"
        ]


def drop_live_code(app: Sphinx, page: str, template, context: dict, doctree) -> None:
    """Leave out the scripts for live code, which this book does not use: they name a web host."""
    context["script_files"] = [
        script
        for script in context["script_files"]
        if "thebe" not in f"{script.filename}{script.attributes.get('body', '')}".lower()
    ]


def copy_mathjax(app: Sphinx) -> None:
    """Copy the one MathJax file that the pages load, so that they need no network."""
    package = importlib.util.find_spec("sphinx-mathjax-offline")
    script = Path(package.origin).with_name("static") / "mathjax" / "tex-svg.js"
    static = Path(app.outdir, "_static")
    static.mkdir(parents=True, exist_ok=True)
    copy_asset_file(str(script), str(static))


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", copy_mathjax)
    app.connect("source-read", show_executed_run)
    app.connect("source-read", write_api)
    app.connect("missing-reference", follow_reexport)
    app.connect("html-page-context", drop_live_code, priority=900)
    app.connect("html-page-context", keep_launch_for_notebooks, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
