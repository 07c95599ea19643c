"""The figures show the numbers they are given.

Shape letters: C categories.
"""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from inforec import plots


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
