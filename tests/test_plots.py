"""The figures show the numbers they are given.

Shape letters: C categories.
"""

import html
import itertools
import json
import math
import re
from html.parser import HTMLParser

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from inforec import plots
from inforec.significance import Difference, Group, hypervolume


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


# ---- fronts and intervals -----------------------------------------------------------------------

POINTS = [(0.30, 0.40), (0.28, 0.10), (0.27, 0.20), (0.25, 0.05)]  # ndcg, calibration_kl
CORNERS = {  # by (more of the first is better, more of the second): the same figure, mirrored
    (True, False): (1, 1),
    (True, True): (1, -1),
    (False, False): (-1, 1),
    (False, True): (-1, -1),
}


def test_front_has_the_second_metric_across_and_hollow_markers_for_the_dominated():
    _, axis = plt.subplots()
    plots.front(axis, {"a": POINTS, "b": [(0.26, 0.30)]})
    steps, dominated, single, none = axis.lines
    assert list(zip(steps.get_xdata(), steps.get_ydata(), strict=True)) == [
        *((0.05, 0.25), (0.10, 0.28), (0.40, 0.30)),
    ]
    assert steps.get_drawstyle() == "steps-post"
    assert list(zip(dominated.get_xdata(), dominated.get_ydata(), strict=True)) == [(0.20, 0.27)]
    assert dominated.get_markerfacecolor() == "none" != steps.get_markerfacecolor()
    assert (list(single.get_xdata()), list(none.get_xdata())) == ([0.30], [])
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["a", "b"]


@pytest.mark.parametrize("maximise", CORNERS)
def test_front_shades_the_area_that_hypervolume_measures(maximise):
    sign_M = np.array(CORNERS[maximise])
    points_PM = np.array([*POINTS, (0.18, 0.01), (0.5, 0.7)]) * sign_M  # the last two do not count
    reference = tuple((np.array([0.2, 0.6]) * sign_M).tolist())
    _, axis = plt.subplots()
    plots.front(axis, {"a": points_PM}, maximise=maximise, reference=reference)
    (shade,) = axis.collections
    x, y = shade.get_paths()[0].vertices[:-1].T
    area = abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
    assert area == pytest.approx(hypervolume(points_PM, reference, maximise=maximise), rel=1e-9)
    steps, left, cross = axis.lines
    # The line goes round the shade, and only its settings have markers.
    assert set(steps.get_xdata()) == set(x) and set(steps.get_ydata()) <= set(y)
    marked = np.array(list(zip(*steps.get_data(), strict=True)))[steps.get_markevery()]
    assert sorted(marked[:, 0] * sign_M[1]) == [0.05, 0.10, 0.40]
    assert len(left.get_xdata()) == 3
    assert (cross.get_xdata()[0], cross.get_ydata()[0]) == reference[::-1]


def test_front_without_a_point_above_the_reference_draws_only_hollow_ones():
    _, axis = plt.subplots()
    plots.front(axis, {"a": POINTS}, reference=(0.5, 0.01))
    steps, left, _ = axis.lines
    assert len(steps.get_xdata()) == 0 and len(left.get_xdata()) == len(POINTS)
    assert not axis.collections


def test_eight_methods_have_eight_looks_and_nine_are_refused():
    _, axis = plt.subplots()
    plots.front(axis, {f"m{k}": POINTS for k in range(8)})
    lines = axis.lines[::2]
    for look in (matplotlib.lines.Line2D.get_color, matplotlib.lines.Line2D.get_marker):
        assert len({look(line) for line in lines}) == 8
    for first, second in itertools.pairwise(lines):
        assert first._dash_pattern != second._dash_pattern  # neighbours differ in dashes too
    with pytest.raises(ValueError, match="points_by_name has 9 methods: expected at most 8"):
        plots.front(axis, {f"m{k}": POINTS for k in range(9)})


def is_hollow(line):
    return line.get_markerfacecolor() == "white"


def test_difference_intervals_put_the_first_row_on_top_and_fill_the_sure_ones():
    _, axis = plt.subplots()
    rows = [("gains", 0.2, 0.1, 0.3), ("unsure", 0.1, -0.1, 0.3), ("pays", -0.2, -0.3, -0.1)]
    plots.difference_intervals(axis, rows)
    zero, *drawn = axis.lines
    assert list(zero.get_xdata()) == [0.0, 0.0]
    names = [tick.get_text() for tick in axis.get_yticklabels()]
    assert names == ["pays", "unsure", "gains"]
    by_name = {row[0]: row[1:] for row in rows}
    for place, (span, middle) in enumerate(zip(drawn[::2], drawn[1::2], strict=True)):
        difference, low, high = by_name[names[place]]
        assert list(span.get_xdata()) == [low, high] and list(span.get_ydata()) == [place, place]
        assert (middle.get_xdata()[0], middle.get_ydata()[0]) == (difference, place)
        assert is_hollow(middle) == (names[place] == "unsure")


def group(low, high, difference, ends):
    return Group(low, high, Difference(0.0, -difference, difference, *ends, 0.95, 10))


def test_by_group_draws_every_method_beside_the_others():
    _, axis = plt.subplots()
    first = [group(1, 4, 0.2, (0.1, 0.3)), group(5, 9, -0.1, (-0.3, 0.1))]
    second = [group(1, 4, -0.2, (-0.3, -0.1)), group(5, 9, 0.0, (-0.1, 0.1))]
    plots.by_group(axis, {"tilt": first, "greedy": second})
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["1–4", "5–9"]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["tilt", "greedy"]
    drawn = [line for line in axis.lines[1:] if len(line.get_xdata())]
    spans, middles = drawn[::2], drawn[1::2]
    for found, span, middle in zip(first + second, spans, middles, strict=True):
        wanted = found.difference
        assert list(span.get_ydata()) == [wanted.low, wanted.high]
        assert middle.get_ydata()[0] == wanted.difference
        assert is_hollow(middle) != wanted.excludes_zero
    places = [middle.get_xdata()[0] for middle in middles]
    assert [round(place) for place in places] == [0, 1, 0, 1] and len(set(places)) == 4
    assert len({middle.get_marker() for middle in middles}) == 2


def test_by_group_refuses_other_groups_and_too_many_methods():
    _, axis = plt.subplots()
    groups = [group(1, 4, 0.2, (0.1, 0.3))]
    with pytest.raises(ValueError, match=r"groups_by_name\['b'\] has groups \['1–5'\]"):
        plots.by_group(axis, {"a": groups, "b": [group(1, 5, 0.2, (0.1, 0.3))]})
    for names in ("", "abcd"):
        with pytest.raises(ValueError, match=f"has {len(names)} methods: expected 1 to 3"):
            plots.by_group(axis, dict.fromkeys(names, groups))


# ---- the figure with sliders --------------------------------------------------------------------

VOID = {"input", "br", "hr", "img", "meta", "link"}
ALPHAS, BETAS = [0.0, 0.5, 2.0], [0.0, 8.0]
NASTY = '</script><script>alert(1)</script> & "<b>$4 question$</b>" <!-- 日本'


class Page(HTMLParser):
    """Every tag with its attributes and text; asserts that tags nest and close."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.found = [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        assert len({name for name, _ in attributes}) == len(attributes)
        element = {"tag": tag, "text": "", **dict(attributes)}
        self.found.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attributes):
        self.found.append({"tag": tag, "text": "", **dict(attributes)})

    def handle_endtag(self, tag):
        assert self.open.pop()["tag"] == tag

    def handle_data(self, text):
        for element in self.open:
            element["text"] += text

    def all(self, tag, kind=None):
        return [e for e in self.found if e["tag"] == tag and kind in (None, e.get("class"))]

    def data(self):
        (script,) = [e for e in self.all("script") if e.get("type") == "application/json"]
        return json.loads(script["text"])


def explorer(**changes):
    settings = list(itertools.product(ALPHAS, BETAS))
    arguments = {
        "sliders": {"α": ALPHAS, "β": BETAS},
        "points": [(0.3 - 0.01 * a, 0.4 / (1 + a) + 0.001 * b) for a, b in settings],
        "lists": [[(NASTY, ["Drama", "War <b>"]), (f"film {a:g} {b:g}", [])] for a, b in settings],
        "laws": [(0.5, 0.5 - 0.1 * a, 0.1 * a) for a, _ in settings],
        "interest": [0.2, 0.3, 0.5],
        "category_names": ["Drama", "<War>", "Film-Noir"],
        "user": "user <b>7</b>",
        "others": {"EASE <i>": (0.31, 0.45)},
        **changes,
    }
    return plots.front_explorer(**arguments)


def test_explorer_is_well_formed_and_needs_no_network():
    text = explorer()
    page = Page(text)
    assert "http" not in text and "//" not in re.sub(r"<script type.*?</script>", "", text)
    assert not [e for e in page.found if e.keys() & {"src", "href", "xlink:href", "onclick"}]
    assert [e["type"] for e in page.all("script") if "type" in e] == ["application/json"]
    assert len(page.all("script")) == 2
    ids = [e["id"] for e in page.found if "id" in e]
    for reference in re.findall(r"url\(#([^)]+)\)", text):
        assert reference in ids
    assert "tex2jax_ignore" in page.found[0]["class"]


def test_explorer_escapes_and_keeps_every_text():
    page = Page(explorer())
    titles = [line["text"] for line in page.all("li")]
    assert titles == [f"{NASTY} Drama, War <b>", "film 0 0 "]
    assert page.data()["items"][0] == [NASTY, "Drama, War <b>"]
    assert not page.all("b")
    words = [e["text"] for e in page.all("text")]
    for word in ("Drama", "<War>", "Film-Noir", "EASE <i>"):
        assert word in words
    captions = " ".join(e["text"] for e in page.all("figcaption"))
    assert captions.count("user <b>7</b>") == 2
    assert html.escape(NASTY) in explorer() and NASTY not in explorer()


def test_explorer_shows_the_first_setting_without_javascript():
    page = Page(explorer())
    (controls,) = page.all("div", "fe-controls")
    assert "hidden" in controls  # sliders that would do nothing
    data = page.data()
    (state,) = page.all("p", "fe-state")
    assert state["text"] == data["states"][0]
    assert state["text"] == "α = 0, β = 0 · ndcg@20: 0.300 · calibration_kl@20, nats: 0.400"
    x, y = data["places"][0]
    (point,) = page.all("circle", "fe-point")
    assert point["transform"] == f"translate({x} {y})"
    (across,), (down,) = page.all("line", "fe-across"), page.all("line", "fe-down")
    assert (across["y1"], across["y2"], down["x1"], down["x2"]) == (str(y), str(y), str(x), str(x))
    assert [float(bar["width"]) for bar in page.all("rect", "fe-bar")] == data["bars"][0]
    assert [share["text"] for share in page.all("text", "fe-share")] == data["shares"][0]
    assert [" ".join(data["items"][i]) for i in data["lists"][0]] == [
        line["text"] for line in page.all("li")
    ]


def test_explorer_has_a_labelled_slider_for_each_setting():
    page = Page(explorer())
    labels, inputs = page.all("label"), page.all("input")
    assert [label["text"][0] for label in labels] == ["α", "β"]
    assert [(e["type"], e["min"], e["max"], e["step"], e["value"]) for e in inputs] == [
        *(("range", "0", "2", "1", "0"), ("range", "0", "1", "1", "0")),
    ]
    assert page.data()["values"] == [["0", "0.5", "2"], ["0", "8"]]


def test_explorer_holds_every_setting_with_the_last_slider_fastest():
    data = Page(explorer()).data()
    states = data["states"]
    assert [state.split(" · ")[0] for state in states] == [
        f"α = {a:g}, β = {b:g}" for a in ALPHAS for b in BETAS
    ]
    shown = [[data["items"][i][0] for i in numbers] for numbers in data["lists"]]
    assert shown == [[NASTY, f"film {a:g} {b:g}"] for a in ALPHAS for b in BETAS]
    assert len(data["items"]) == 7  # each item is stored once
    # Bars: the largest shares first (all three reach 0.5), widths in proportion.
    assert data["shares"][4] == ["50%", "30%", "20%"]
    assert data["bars"][4] == pytest.approx([188.0, 188 * 0.3 / 0.5, 188 * 0.2 / 0.5], abs=0.05)


def test_explorer_gives_bars_to_the_largest_categories():
    page = Page(explorer(interest=[0.1, 0.2, 0.7], laws=[(0.5, 0.4, 0.1)] * 6, most=2))
    assert page.data()["shares"] == [["10%", "50%"]] * 6  # of the third category and the first
    assert len(page.all("rect", "fe-bar")) == 2


def test_explorer_places_points_by_their_metrics():
    data = Page(explorer()).data()
    place_S2 = np.array(data["places"])
    for axis, sign, values in (
        (0, 1, [0.4 / (1 + a) + 0.001 * b for a in ALPHAS for b in BETAS]),
        (1, -1, [0.3 - 0.01 * a for a in ALPHAS for _ in BETAS]),
    ):
        slope, _ = np.polyfit(values, place_S2[:, axis], 1)
        assert sign * slope > 0
        assert np.corrcoef(values, place_S2[:, axis])[0, 1] * sign > 0.9999
    assert (place_S2[:, 0] > 52).all() and (place_S2[:, 0] < 348).all()
    assert (place_S2[:, 1] > 12).all() and (place_S2[:, 1] < 232).all()
    # Only beta = 0 is on the front: a larger beta has the same ndcg and a larger divergence.
    (steps,) = Page(explorer()).all("path", "fe-front")
    corners = re.findall(r"[MH]([\d.]+)", steps["d"])
    assert [float(x) for x in corners] == sorted(place_S2[::2, 0])


def test_several_explorers_share_a_page():
    first, second = explorer(), explorer()
    page = Page(f"<div>{first}{second}</div>")
    ids = [e["id"] for e in page.found if "id" in e]
    assert len(ids) == len(set(ids)) == 4
    for text in (first, second):
        own = Page(text).found[0]["id"]
        assert text.count(f'("{own}");') == 1


def test_explorer_without_spread_or_others():
    page = Page(
        plots.front_explorer(
            {"λ": [0.5]}, [(0.3, 0.2)], [[]], [[1.0]], interest=[1.0], category_names=["all"]
        )
    )
    assert page.data()["places"] == [[200.0, 122.0]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sliders": {}}, "sliders={}: expected at least one"),
        ({"sliders": {"α": []}}, "expected at least one, each with a value"),
        ({"points": [(0.1, 0.2)]}, "points has 1 settings: the sliders make 6"),
        ({"lists": [[]] * 5}, "lists has 5 settings: the sliders make 6"),
        ({"laws": [(0.5, 0.5)] * 6}, r"laws of shape \(6, 2\): expected finite numbers, \(6, 3\)"),
        ({"points": [(0.1, math.nan)] * 6}, r"points of shape \(6, 2\): expected finite numbers"),
        ({"interest": [1.0]}, r"interest of shape \(1,\): expected finite numbers, \(3,\)"),
        ({"others": {"EASE": (0.1, 0.2, 0.3)}}, r"others of shape \(1, 3\)"),
    ],
)
def test_explorer_names_what_does_not_fit(changes, message):
    with pytest.raises(ValueError, match=message):
        explorer(**changes)
