"""Every figure of the book and the notebooks.

Colours differ in lightness as well as hue, lines in marker, bars in hatch: the figures can be
read in grey and on a phone.

Shape letters: U users, N items, C categories.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

if TYPE_CHECKING:
    from inforec.data import Dataset

# From dark to light: blue, vermilion, green, amber, violet, grey.
PALETTE = ["#0b3c6f", "#c8501e", "#3f9c78", "#e8a92c", "#8d6bb3", "#8c8c8c"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*"]
HATCHES = ["", "///", "...", "xx", "\\\\", "++"]
WIDTH = 6.4  # inches; a phone shows this at about half size, so the text stays at 10 points


def use_style() -> None:
    """Set matplotlib's style for all figures that follow."""
    plt.rcParams.update(
        {
            "figure.figsize": (WIDTH, 3.6),
            "figure.dpi": 120,
            "figure.constrained_layout.use": True,
            "figure.facecolor": "white",
            "savefig.facecolor": "white",
            "font.size": 11,
            "axes.titlesize": 11.5,
            "axes.labelsize": 11,
            "legend.fontsize": 10,
            "xtick.labelsize": 10,
            "ytick.labelsize": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.color": "#dddddd",
            "grid.linewidth": 0.7,
            "axes.axisbelow": True,
            "axes.prop_cycle": plt.cycler(color=PALETTE),
            "lines.linewidth": 1.8,
            "lines.markersize": 5,
            "legend.frameon": False,
            "hatch.linewidth": 0.7,
            "patch.linewidth": 0.6,
        }
    )


def data_overview(dataset: Dataset) -> Figure:
    """The data in one figure: how active users are, how popular items are, what the items are."""
    train = dataset.train
    with_categories = dataset.category_NC is not None
    figure = plt.figure(figsize=(WIDTH, 5.6 if with_categories else 2.6))
    grid = figure.add_gridspec(
        1 + with_categories, 2, height_ratios=[1, 1.35][: 1 + with_categories]
    )
    for column, (counts, label) in enumerate(
        [
            (train.user_counts, "users, most active first"),
            (train.item_counts, "items, most popular first"),
        ]
    ):
        axis = figure.add_subplot(grid[0, column])
        ranked = np.sort(counts.cpu().numpy())[::-1]
        ranked = ranked[ranked > 0]
        axis.loglog(np.arange(1, len(ranked) + 1), ranked, color=PALETTE[0])
        axis.set(xlabel=label, ylabel="" if column else "training interactions")
    if with_categories:
        share_items = dataset.category_NC.double().mean(0).cpu().numpy()
        share_taken = dataset.category_NC[train.item].double().mean(0).cpu().numpy()
        order = np.argsort(share_taken)[-12:]
        axis = figure.add_subplot(grid[1, :])
        _paired_bars(
            axis,
            [dataset.category_names[c] for c in order],
            {"of what was taken": share_taken[order], "of the catalogue": share_items[order]},
        )
        axis.set_xlabel(f"share of {dataset.category_kind}")
        axis.legend(loc="lower right")
    return figure


def training_curve(history: Sequence[Mapping], metric: str = "ndcg@20") -> Figure:
    """The training loss (nats) and a validation metric over the epochs, best epoch marked."""
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(WIDTH, 4.2), sharex=True)
    trained = [entry for entry in history if entry["loss"] is not None]
    top.plot([e["epoch"] for e in trained], [e["loss"] for e in trained], color=PALETTE[0])
    top.set_ylabel("training loss, nats")
    checked = [entry for entry in history if "valid" in entry]
    epochs = [entry["epoch"] for entry in checked]
    values = [entry["valid"][metric] for entry in checked]
    best = int(np.argmax(values))
    bottom.plot(epochs, values, marker="o", color=PALETTE[1])
    bottom.plot(epochs[best], values[best], "*", ms=15, color=PALETTE[0])
    bottom.annotate(
        f"kept: epoch {epochs[best]}, {values[best]:.4f}",
        (epochs[best], values[best]),
        xytext=(0, -16),
        textcoords="offset points",
        ha="center",
        va="top",
    )
    bottom.set(xlabel="epoch", ylabel=f"validation {metric}")
    bottom.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def interests(
    laws: Sequence[Mapping[str, np.ndarray]],
    category_names: Sequence[str],
    titles: Sequence[str],
    *,
    most: int = 8,
) -> Figure:
    """P_u against Q_u: for each user a panel of bars over the categories with most mass.

    Args:
        laws: for each user, laws over the C categories by name, each (C,), at most three.
        category_names: the C names.
        titles: one a user.
        most: categories a panel shows.
    """
    height = 0.7 + 0.34 * most
    figure, axes = plt.subplots(
        len(laws), 1, figsize=(WIDTH, height * len(laws)), sharex=True, squeeze=False
    )
    for axis, user_laws, title in zip(axes[:, 0], laws, titles, strict=True):
        weight_C = np.max(list(user_laws.values()), axis=0)
        order = np.argsort(weight_C)[-most:]
        _paired_bars(
            axis,
            [category_names[c] for c in order],
            {name: law_C[order] for name, law_C in user_laws.items()},
        )
        axis.set_title(title, loc="left")
    axes[0, 0].legend(loc="lower right")
    axes[-1, 0].set_xlabel("share of the law's mass")
    return figure


def heatmap(
    axis: Axes,
    value_RX: np.ndarray,
    rows: Sequence[float],
    columns: Sequence[float],
    *,
    form: str = ".3f",
    light_is_low: bool = True,
) -> None:
    """A table of numbers with the numbers written in it; rows are alpha, columns beta."""
    axis.imshow(value_RX, cmap="cividis_r" if light_is_low else "cividis", aspect="auto")
    spread = np.nanmax(value_RX) - np.nanmin(value_RX) or 1.0
    for row in range(len(rows)):
        for column in range(len(columns)):
            share = (value_RX[row, column] - np.nanmin(value_RX)) / spread
            dark = share > 0.5 if light_is_low else share < 0.5
            axis.text(
                column,
                row,
                format(value_RX[row, column], form),
                ha="center",
                va="center",
                color="white" if dark else "black",
                fontsize=9.5,
            )
    axis.set_xticks(range(len(columns)), [f"{value:g}" for value in columns])
    axis.set_yticks(range(len(rows)), [f"{value:g}" for value in rows])
    axis.set(xlabel=r"$\beta$", ylabel=r"$\alpha$")
    axis.grid(visible=False)


def trade_off(
    axis: Axes,
    paths: Mapping[str, Sequence[tuple[float, float, float, float]]],
    points: Mapping[str, tuple[float, float]] | None = None,
) -> None:
    """Paths of two metrics with the spread over seeds, and single points to compare with.

    Args:
        axis: where to draw.
        paths: by name, (x, y, sd of x, sd of y) in the order of the setting that varies.
        points: by name, (x, y).
    """
    for number, (name, path) in enumerate(paths.items()):
        x, y, x_sd, y_sd = np.array(path).T
        axis.errorbar(
            x,
            y,
            xerr=x_sd,
            yerr=y_sd,
            marker=MARKERS[number],
            color=PALETTE[number],
            elinewidth=0.8,
            capsize=2,
            label=name,
        )
    for number, (name, (x, y)) in enumerate((points or {}).items()):
        axis.plot(
            x, y, MARKERS[-1 - number], color=PALETTE[-1], mec="black", ms=9, ls="none", label=name
        )
    axis.legend()


def _paired_bars(axis: Axes, labels: Sequence[str], values: Mapping[str, np.ndarray]) -> None:
    """Horizontal bars in groups, first group on top in each pair; shares from 0 to 1."""
    place, height = np.arange(len(labels)), 0.8 / len(values)
    for number, (name, share) in enumerate(values.items()):
        offset = (len(values) - 1) / 2 - number
        axis.barh(
            place + offset * height,
            share,
            height,
            color=PALETTE[[0, 3, 1][number]],
            hatch=HATCHES[number],
            edgecolor="white",
            label=name,
        )
    axis.set_yticks(place, labels)
    axis.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axis.grid(axis="y", visible=False)
