"""What each model of the registry says of its place among the others."""

import re
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pytest

from inforec import plots, results
from inforec.models import REGISTRY

BOOK = Path(__file__).parents[2] / "book"


def ancestors(name):
    """The models that a model builds on, nearest first."""
    found = []
    while (name := REGISTRY[name].builds_on) is not None:
        assert name not in found, f"{name} builds on itself"
        found.append(name)
    return found


@pytest.mark.parametrize("name", REGISTRY)
def test_each_model_says_itself_what_it_builds_on_and_adds(name):
    own = vars(REGISTRY[name])  # what a parent class says is not about this model
    assert {"builds_on", "adds"} <= set(own)
    assert own["builds_on"] is None or own["builds_on"] in REGISTRY
    assert own["adds"].strip() == own["adds"] != ""


@pytest.mark.parametrize("name", REGISTRY)
def test_nothing_builds_on_itself_and_a_subclass_builds_on_its_parent(name):
    above = ancestors(name)
    names = {model: other for other, model in REGISTRY.items()}
    parents = [names[base] for base in REGISTRY[name].__mro__[1:] if base in names]
    assert set(parents) <= set(above)


@pytest.mark.parametrize("name", [name for name in REGISTRY if name != "popularity"])
def test_each_docstring_names_its_paper_by_year_and_title(name):
    """The book's map finds the paper in references.bib by both; see book/map.md."""
    year, title = re.search(
        r'\((\d{4})\), "(.+?)"', " ".join(REGISTRY[name].__doc__.split())
    ).groups()
    entries = (BOOK / "references.bib").read_text(encoding="utf-8").split("\n@")
    found = [entry for entry in entries if plain(f"title{title}") in plain(entry)]
    assert [entry for entry in found if re.search(rf"year\s*=\s*\{{{year}\}}", entry)]


def plain(text):
    return re.sub(r"[^a-z0-9]", "", text.lower())


def test_the_map_shows_each_model_once_with_room_for_its_words():
    plots.use_style()
    figure = plots.model_map(REGISTRY, results.NAMES)
    (axis,) = figure.axes
    figure.canvas.draw()
    said = [text.get_text() for text in axis.texts]
    boxes = [text.get_window_extent() for text in axis.texts]
    plt.close(figure)
    for name, model in REGISTRY.items():
        assert said.count(model.adds) == 1
        at = said.index(model.adds)
        assert said[at - 1] == results.NAMES.get(name, name)
        assert boxes[at].x0 > boxes[at - 1].x1
        assert boxes[at].x1 <= figure.bbox.x1, f"{name}: {model.adds!r} is too long"


def test_a_model_of_another_family_stands_above_those_that_build_on_it():
    def model(family, builds_on, adds):
        return type(
            "Model", (), {"__module__": f"m.{family}.x", "builds_on": builds_on, "adds": adds}
        )

    models = {
        "a": model("one", None, "1"),
        "d": model("two", "c", "4"),
        "c": model("two", "a", "3"),
        "b": model("one", "a", "2"),
    }
    figure = plots.model_map(models, {"c": "C"})
    (axis,) = figure.axes
    said = [text.get_text() for text in axis.texts]
    assert said == ["one", "a", "1", "b", "2", "two", "a", "(one)", "C", "3", "d", "4"]
    marks = [line.get_xdata()[0] for line in axis.lines if line.get_marker() not in ("None", "")]
    assert marks[0] == marks[2] < marks[1] == marks[3] < marks[4]
    plt.close(figure)
