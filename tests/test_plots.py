"""The figures show the numbers they are given.

Shape letters: C categories.
"""

import json
import math
from html.parser import HTMLParser

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from inforec import plots
from inforec.significance import bootstrap_by_group


@pytest.fixture(autouse=True)
def closed_figures():
    plots.use_style()
    yield
    plt.close("all")


def bar_widths(axis):
    return [[bar.get_width() for bar in group] for group in axis.containers]


def test_interests_draws_the_largest_categories_of_each_law():
    wanted = np.array([0.1, 0.0, 0.6, 0.3])
    served = np.array([0.2, 0.05, 0.5, 0.25])
    figure = plots.interests([{"P": wanted, "Q": served}], list("abcd"), ["user 7"], most=3)
    (axis,) = figure.axes
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["a", "d", "c"]
    assert bar_widths(axis) == [[0.1, 0.3, 0.6], [0.2, 0.25, 0.5]]
    assert axis.get_title(loc="left") == "user 7"


def test_training_curve_marks_the_best_epoch():
    history = [
        {"epoch": epoch, "loss": 1 / epoch, "terms": {}, "valid": {"ndcg@20": value}}
        for epoch, value in ((1, 0.1), (2, 0.3), (3, 0.2))
    ]
    figure = plots.training_curve(history)
    assert list(figure.axes[0].lines[0].get_ydata()) == [1.0, 0.5, 1 / 3]
    assert [text.get_text() for text in figure.axes[1].texts] == ["kept: epoch 2, 0.3000"]


def test_heatmap_writes_every_number_legibly():
    _, axis = plt.subplots()
    plots.heatmap(axis, np.array([[0.1, 0.2], [0.3, 0.4]]), [0, 1], [0, 2], form=".1f")
    assert [text.get_text() for text in axis.texts] == ["0.1", "0.2", "0.3", "0.4"]
    assert [text.get_color() for text in axis.texts] == ["black", "black", "white", "white"]
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["0", "2"]


def test_trade_off_draws_paths_and_points_with_different_markers():
    _, axis = plt.subplots()
    path = [(0.4, 0.2, 0.01, 0.01), (0.3, 0.19, 0.01, 0.02)]
    plots.trade_off(axis, {"a": path, "b": path}, {"EASE": (0.5, 0.3), "ALS": (0.4, 0.3)})
    drawn = [line for line in axis.lines if line.get_marker() in plots.MARKERS]
    assert len({line.get_marker() for line in drawn}) == 4
    labels = [text.get_text() for text in axis.get_legend().get_texts()]
    assert sorted(labels) == ["ALS", "EASE", "a", "b"]
    assert list(drawn[0].get_xdata()) == [0.4, 0.3]


def test_data_overview_counts_the_training_interactions(tiny):
    figure = plots.data_overview(tiny)
    users, items, kinds = figure.axes
    assert list(users.lines[0].get_ydata()) == sorted(tiny.train.user_counts.tolist())[::-1]
    seen = [count for count in tiny.train.item_counts.tolist() if count]
    assert list(items.lines[0].get_ydata()) == sorted(seen)[::-1]
    taken_C = tiny.category_NC[tiny.train.item].double().mean(0)
    assert np.allclose(bar_widths(kinds)[0], torch.sort(taken_C).values)


def test_palette_differs_in_lightness():
    grey = [
        np.dot(matplotlib.colors.to_rgb(colour), (0.2126, 0.7152, 0.0722))
        for colour in (plots.PALETTE[0], plots.PALETTE[1], plots.PALETTE[3])
    ]
    assert min(abs(a - b) for i, a in enumerate(grey) for b in grey[:i]) > 0.1


# ---- fronts, intervals, groups ------------------------------------------------------------------


def lines_named(axis, name):
    return [line for line in axis.lines if line.get_label() == name]


def test_a_front_is_a_step_line_through_what_nothing_beats():
    _, axis = plt.subplots()
    # (ndcg up, kl down): the third is beaten by the second.
    points = [(0.30, 0.5), (0.28, 0.2), (0.27, 0.3), (0.25, 0.1)]
    plots.front(axis, {"ours": points, "one": [(0.2, 0.4)]})
    (line,) = lines_named(axis, "ours")
    np.testing.assert_allclose(line.get_xdata(), [0.1, 0.2, 0.5])
    np.testing.assert_allclose(line.get_ydata(), [0.25, 0.28, 0.30])
    assert line.get_drawstyle() == "steps-post"
    hollow = axis.lines[axis.lines.index(line) + 1]
    assert hollow.get_markerfacecolor() == "none"
    assert (hollow.get_xdata().tolist(), hollow.get_ydata().tolist()) == ([0.3], [0.27])


def test_a_reference_bounds_the_front():
    _, axis = plt.subplots()
    plots.front(axis, {"ours": [(0.30, 0.5), (0.28, 0.2)]}, reference=(0.26, 0.4))
    (line,) = lines_named(axis, "ours")
    np.testing.assert_allclose(line.get_xdata(), [0.2, 0.2, 0.4])
    np.testing.assert_allclose(line.get_ydata(), [0.26, 0.28, 0.28])
    (cross,) = lines_named(axis, "reference")
    assert (*cross.get_xdata(), *cross.get_ydata()) == (0.4, 0.26)
    with pytest.raises(ValueError, match=r"points_by_name has 9 methods: expected at most 8"):
        plots.front(axis, {str(n): [(0.1, 0.1)] for n in range(9)})


def test_intervals_are_filled_where_they_exclude_zero():
    _, axis = plt.subplots()
    plots.difference_intervals(axis, [("sure", 0.2, 0.1, 0.3), ("not", 0.0, -0.1, 0.2)])
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["not", "sure"]
    assert np.asarray(axis.lines[0].get_xdata()).tolist() == [0.0, 0.0]  # the line at zero
    drawn = [(line.get_xdata().tolist(), line.get_markerfacecolor()) for line in axis.lines[1:]]
    (not_ends, _), (not_middle, not_face), (ends, _), (middle, face) = drawn
    assert (not_ends, not_middle, not_face) == ([-0.1, 0.2], [0.0], "white")
    assert (ends, middle) == ([0.1, 0.3], [0.2]) and face != "white"


def test_groups_stand_side_by_side_and_must_be_the_same():
    random = np.random.default_rng(0)
    key_U, first_U, second_U = random.random((3, 200))
    groups = bootstrap_by_group(first_U, second_U, key_U, groups=4, samples=50)
    _, axis = plt.subplots()
    plots.by_group(axis, {"a": groups, "b": groups})
    assert [tick.get_text() for tick in axis.get_xticklabels()] == [g.label for g in groups]
    means = [line.get_ydata()[0] for line in axis.lines if len(line.get_xdata()) == 1]
    np.testing.assert_allclose(means, 2 * [g.difference.difference for g in groups])
    other = bootstrap_by_group(first_U, second_U, key_U, groups=3, samples=50)
    with pytest.raises(ValueError, match=r"groups_by_name\['b'\] has groups"):
        plots.by_group(axis, {"a": groups, "b": other})


# ---- the figure with sliders --------------------------------------------------------------------

TITLE = 'A </script><b>film</b> & "more"'


def explorer(**changes):
    given = {
        "sliders": {"alpha": [0, 1], "beta": [0.5, 2, 4]},
        "points": [(0.3 - 0.01 * n, 0.5 - 0.05 * n) for n in range(6)],
        "lists": [[(TITLE, ["Drama"]), (f"film {n}", ["War", "Comedy"])] for n in range(6)],
        "laws": [[0.5, 0.25, 0.25]] * 5 + [[0.0, 0.5, 0.5]],
        "interest": [0.2, 0.3, 0.5],
        "category_names": ["Drama", "War", "Comedy"],
        "others": {"EASE": (0.31, 0.4)},
    }
    return plots.front_explorer(**{**given, **changes})


class Page(HTMLParser):
    """The tags of a page, which must close in order, and the text of its scripts."""

    VOID = ("input", "path", "circle", "rect", "line")

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.links, self.data = [], [], [], ""
        self.labels, self.inputs, self.items = 0, [], 0
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.links += [attrs[name] for name in ("src", "href") if name in attrs]
        self.labels += tag == "label"
        self.items += tag == "li"
        if tag == "input":
            self.inputs.append(attrs)
        if tag not in self.VOID:
            self.open.append((tag, attrs))

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop()[0] == tag

    def handle_data(self, text):
        tag, attrs = self.open[-1] if self.open else ("", {})
        if tag == "script" and attrs.get("type") == "application/json":
            self.data += text


def test_the_explorer_holds_every_setting_and_escapes_what_it_shows():
    text = explorer()
    page = Page(text)
    data = json.loads(page.data)
    assert data["values"] == [["0", "1"], ["0.5", "2", "4"]]
    assert [len(data[name]) for name in ("places", "states", "lists", "bars")] == [6] * 4
    assert data["states"][4].startswith("alpha = 1, beta = 2 · ndcg@20: 0.260")
    titles = [[data["items"][item][0] for item in shown] for shown in data["lists"]]
    assert titles == [[TITLE, f"film {n}"] for n in range(6)]
    assert "<b>" not in text and "&lt;/script&gt;" in text and page.items == 2
    # The bars are in proportion to the list's shares of 1/2, 1/4 and 1/4.
    widths = np.array(data["bars"])
    wanted = widths.max() * np.array([0.5, 0.5, 1.0])
    np.testing.assert_allclose(sorted(widths[0]), wanted, atol=0.1)


def test_the_explorer_stands_alone_and_can_be_used_with_keys():
    first, second = Page(explorer()), Page(explorer())
    assert first.links == second.links == [] and not set(first.ids) & set(second.ids)
    assert [each["type"] for each in first.inputs] == ["range"] * 2 and first.labels == 2
    assert [each["max"] for each in first.inputs] == ["1", "2"]
    assert "http" not in explorer().lower()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"sliders": {}}, r"sliders=\{\}: expected at least one"),
        ({"points": [(0.1, 0.2)]}, "points has 1 settings: the sliders make 6"),
        ({"laws": [[0.5, 0.5]] * 6}, r"laws of shape \(6, 2\)"),
        ({"interest": [0.1, math.nan, 0.5]}, "interest of shape"),
    ],
)
def test_what_does_not_fit_the_sliders_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        explorer(**changes)
