"""Every figure of the book and the notebooks.

Colours differ in lightness as well as hue, lines in marker, bars in hatch: the figures can be
read in grey and on a phone.

Shape letters: U users, N items, C categories, P points, S settings.
"""

from __future__ import annotations

import hashlib
import html
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from inforec.significance import Group, pareto_front

if TYPE_CHECKING:
    from inforec.data import Dataset

# Blue, vermilion, green and amber go from dark to light; then violet, grey, brown, sky.
PALETTE = ["#0b3c6f", "#c8501e", "#3f9c78", "#e8a92c", "#8d6bb3", "#8c8c8c", "#4a2412", "#4aa0cf"]
GREY = PALETTE[5]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*"]
DASHES = ["-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2))]
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


def model_map(models: Mapping[str, type], names: Mapping[str, str]) -> Figure:
    """The models by family: each below the one it builds on, with what it adds.

    A model of another family that some build on stands above them once more, hollow.

    Args:
        models: classes with ``builds_on`` and ``adds`` by name, such as inforec.models.REGISTRY;
            the folder of a class's file is its family.
        names: how names are shown, where that is not the name itself.
    """
    family_of = {name: model.__module__.split(".")[-2] for name, model in models.items()}
    families = list(dict.fromkeys(family_of.values()))
    rows: list[tuple[str, str | None, int, int]] = []  # family, name, depth, row of the parent

    def place(family: str, name: str, depth: int, parent: int) -> None:
        rows.append((family, name, depth, parent))
        own = len(rows) - 1
        for child, model in models.items():
            if family_of[child] == family and model.builds_on == name:
                place(family, child, depth + 1, own)

    for family in families:
        rows.append((family, None, 0, -1))
        members = [name for name in models if family_of[name] == family]
        above = [models[name].builds_on for name in members]
        for name in dict.fromkeys([n for n in above if n and n not in members]):
            place(family, name, 0, -1)
        for name in members:
            if models[name].builds_on is None:
                place(family, name, 0, -1)

    figure, axis = plt.subplots(figsize=(WIDTH, 0.42 * len(rows)), layout="none")
    figure.subplots_adjust(0.01, 0.0, 0.99, 1.0)
    axis.set(xlim=(0, 1), ylim=(len(rows) - 0.5, -0.5))
    axis.set_axis_off()
    for row, (family, name, depth, parent) in enumerate(rows):
        if name is None:
            axis.text(0.0, row + 0.1, family, weight="bold", fontsize=14, va="center")
            axis.plot([0, 1], [row + 0.45] * 2, color="0.75", lw=1.0)
            continue
        x, home = 0.02 + 0.042 * depth, family_of[name]
        look = families.index(home)
        if depth:
            corner = x - 0.042
            axis.plot([corner, corner, x], [parent, row, row], color="0.55", lw=1.2, zorder=1)
        face = PALETTE[look] if home == family else "white"
        axis.plot(x, row, MARKERS[look], ms=9, mec=PALETTE[look], mew=1.6, mfc=face)
        style = {"weight": "bold"} if home == family else {"color": "0.35"}
        shown = axis.text(x + 0.025, row, names.get(name, name), va="center", fontsize=13, **style)
        axis.annotate(
            models[name].adds if home == family else f"({home})",
            (1, 0.5),
            xytext=(7, 0),
            xycoords=shown,
            textcoords="offset points",
            va="center",
            fontsize=13,
            color="0.2",
        )
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
        axis.plot(x, y, MARKERS[-1 - number], color=GREY, mec="black", ms=9, ls="none", label=name)
    axis.legend()


def front(
    axis: Axes,
    points_by_name: Mapping[str, Sequence[tuple[float, float]]],
    *,
    maximise: tuple[bool, bool] = (True, False),
    reference: tuple[float, float] | None = None,
) -> None:
    """Settings of several methods, and each method's Pareto front as a step line.

    Points on the front are filled, dominated ones hollow. As in :mod:`inforec.significance` a point
    is, say, (ndcg, calibration_kl); the second metric is on the horizontal axis, as in
    :func:`trade_off`.

    Args:
        axis: where to draw.
        points_by_name: by method, at most eight, (P, 2) values of the two metrics, one row a
            setting.
        maximise: for each metric, whether more is better.
        reference: the reference point of the hypervolume. With it, points that are not better in
            both metrics count as dominated, the lines go on to its edges, and the areas are shaded.
    """
    if len(points_by_name) > len(PALETTE):
        raise ValueError(
            f"points_by_name has {len(points_by_name)} methods: expected at most {len(PALETTE)}"
        )
    step = "pre" if maximise[1] else "post"
    shade = 0.2 / max(2, len(points_by_name))  # shades lie on each other; lines must stay visible
    for number, (name, points_PM) in enumerate(points_by_name.items()):
        points_PM = np.asarray(points_PM, dtype=float)
        kept = pareto_front(points_PM, maximise=maximise)
        kept = kept[np.argsort(points_PM[kept, 1], kind="stable")]
        if reference is not None:
            better_PM = np.where(maximise, points_PM > reference, points_PM < reference)
            kept = kept[better_PM[kept].all(1)]
        y, x = points_PM[kept].T
        marked = slice(None)
        if reference is not None and len(kept):
            low, last = reference
            # Up from the reference at the best horizontal value, and level at the other end.
            x = np.concatenate([[last], x, x[-1:]] if maximise[1] else [x[:1], x, [last]])
            y = np.concatenate([y[:1], y, [low]] if maximise[1] else [[low], y, y[-1:]])
            marked = slice(1, -1)
            axis.fill_between(x, low, y, step=step, color=PALETTE[number], alpha=shade, lw=0)
        look = {"color": PALETTE[number], "marker": MARKERS[number], "ms": 6.5}
        axis.plot(
            x,
            y,
            **look,
            ls=DASHES[number % len(DASHES)],
            drawstyle=f"steps-{step}",
            markevery=marked,
            label=name,
        )
        left = np.delete(points_PM, kept, axis=0)
        axis.plot(left[:, 1], left[:, 0], **look, ls="none", mfc="none", mew=1.1, alpha=0.75)
    if reference is not None:
        axis.plot(*reference[::-1], "+", color="black", ms=11, mew=1.6, label="reference")
    axis.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, borderaxespad=0.2)


def difference_intervals(axis: Axes, rows: Sequence[tuple[str, float, float, float]]) -> None:
    """Mean differences with their intervals and a line at zero, one row each, the first on top.

    A filled marker says that the interval excludes zero, a hollow one that it does not.

    Args:
        axis: where to draw.
        rows: (name, difference, low, high), such as of a :class:`inforec.significance.Difference`.
    """
    axis.axvline(0.0, color="black", lw=1.0, ls=DASHES[1])
    for place, (_, difference, low, high) in enumerate(reversed(rows)):
        _interval(axis, (low, high), (place, place), (difference, place), 0, low > 0 or high < 0)
    axis.set_yticks(range(len(rows)), [row[0] for row in reversed(rows)])
    axis.set_ylim(-0.6, len(rows) - 0.4)
    axis.grid(axis="y", visible=False)


def by_group(axis: Axes, groups_by_name: Mapping[str, Sequence[Group]]) -> None:
    """Who gains and who pays: the mean difference with its interval in each group of users.

    A filled marker says that the interval excludes zero, a hollow one that it does not.

    Args:
        axis: where to draw.
        groups_by_name: by method, at most three, the groups of
            :func:`inforec.significance.bootstrap_by_group`; the same groups for each method.
    """
    if not 1 <= len(groups_by_name) <= 3:
        raise ValueError(f"groups_by_name has {len(groups_by_name)} methods: expected 1 to 3")
    labels_by_name = {n: [g.label for g in groups] for n, groups in groups_by_name.items()}
    labels = next(iter(labels_by_name.values()))
    for name, others in labels_by_name.items():
        if others != labels:
            raise ValueError(f"groups_by_name[{name!r}] has groups {others}: expected {labels}")
    axis.axhline(0.0, color="black", lw=1.0, ls=DASHES[1])
    for number, (name, groups) in enumerate(groups_by_name.items()):
        offset = 0.22 * (number - (len(groups_by_name) - 1) / 2)
        for place, group in enumerate(groups):
            x, found = place + offset, group.difference
            ends, middle = (found.low, found.high), (x, found.difference)
            _interval(axis, (x, x), ends, middle, number, found.excludes_zero)
        axis.plot([], [], ls="none", marker=MARKERS[number], color=PALETTE[number], label=name)
    axis.set_xticks(range(len(labels)), labels)
    axis.set_xlim(-0.6, len(labels) - 0.4)
    axis.grid(axis="x", visible=False)
    if len(groups_by_name) > 1:
        axis.legend()


def _interval(
    axis: Axes,
    x_ends: tuple[float, float],
    y_ends: tuple[float, float],
    middle: tuple[float, float],
    number: int,
    sure: bool,
) -> None:
    """A line with a cap at each end and a marker at the middle, hollow unless ``sure``."""
    colour = PALETTE[number]
    cap = "|" if y_ends[0] == y_ends[1] else "_"
    axis.plot(x_ends, y_ends, color=colour, marker=cap, ms=8, mew=1.6, ls="-")
    axis.plot(
        *middle,
        marker=MARKERS[number],
        color=colour,
        ms=7.5,
        mew=1.6,
        mfc=colour if sure else "white",
        ls="none",
    )


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


# ---- a figure with sliders ----------------------------------------------------------------------

_EXPLORERS = itertools.count(1)
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 348, 12, 232  # the front's frame, in units of its drawing
_BARS, _ROW = (112, 300), 32  # from where to where the bars go, and the height of a category

_EXPLORER_CSS = """
.front-explorer { --fe-accent: var(--explorer-accent, #c8501e); color: inherit; line-height: 1.4; }
.front-explorer figure { margin: 0; min-width: 0; }
.front-explorer figcaption { font-weight: 600; margin: 0.6em 0 0.2em; text-align: left; }
.front-explorer svg { display: block; width: 100%; max-width: 30rem; height: auto; }
.front-explorer svg text { fill: currentColor; font: 12px sans-serif; }
.front-explorer .fe-controls label { display: grid;
  grid-template-columns: minmax(3em, max-content) 1fr 3.5em; gap: 0.6em;
  align-items: center; max-width: 40rem; min-height: 2.2em; }
.front-explorer [hidden] { display: none; }
.front-explorer input { width: 100%; margin: 0; accent-color: var(--fe-accent); }
.front-explorer .fe-state { margin: 0.3em 0; font-variant-numeric: tabular-nums; }
.front-explorer .fe-pair { display: grid; gap: 0 1.5rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 18rem), 1fr)); }
.front-explorer ol { columns: 2 17rem; margin: 0.2em 0; padding: 0; list-style-position: inside; }
.front-explorer li { break-inside: avoid; margin: 0.15em 0; }
.front-explorer li small { opacity: 0.75; font-size: 0.85em; }
.front-explorer .fe-new span { border-bottom: 2px solid var(--fe-accent); }
"""

_EXPLORER_JS = """
(function (id) {
  const root = document.getElementById(id), find = (name) => root.querySelector(name);
  const data = JSON.parse(find("script[type='application/json']").textContent);
  const inputs = [...root.querySelectorAll("input")];
  const bars = [...root.querySelectorAll(".fe-bar")];
  const shares = [...root.querySelectorAll(".fe-share")];
  const first = new Set(data.lists[0]);
  function entry(item) {
    const line = document.createElement("li");
    const title = document.createElement("span"), kinds = document.createElement("small");
    title.textContent = data.items[item][0];
    kinds.textContent = data.items[item][1];
    line.append(title, " ", kinds);
    line.classList.toggle("fe-new", !first.has(item));
    return line;
  }
  function show() {
    let setting = 0;
    inputs.forEach((input, k) => {
      const value = data.values[k][input.value];
      setting = setting * data.values[k].length + Number(input.value);
      input.setAttribute("aria-valuetext", value);
      input.nextElementSibling.textContent = value;
    });
    const [x, y] = data.places[setting];
    find(".fe-point").setAttribute("transform", `translate(${x} ${y})`);
    find(".fe-across").setAttribute("y1", y);
    find(".fe-across").setAttribute("y2", y);
    find(".fe-down").setAttribute("x1", x);
    find(".fe-down").setAttribute("x2", x);
    find(".fe-state").textContent = data.states[setting];
    find("ol").replaceChildren(...data.lists[setting].map(entry));
    bars.forEach((bar, k) => bar.setAttribute("width", data.bars[setting][k]));
    shares.forEach((share, k) => {
      share.textContent = data.shares[setting][k];
      share.setAttribute("x", data.ends[setting][k]);
    });
  }
  inputs.forEach((input) => input.addEventListener("input", show));
  find(".fe-controls").hidden = false;
  show();
})"""


def front_explorer(
    sliders: Mapping[str, Sequence[float]],
    points: Sequence[tuple[float, float]],
    lists: Sequence[Sequence[tuple[str, Sequence[str]]]],
    laws: Sequence[Sequence[float]],
    *,
    interest: Sequence[float],
    category_names: Sequence[str],
    user: str = "one user",
    others: Mapping[str, tuple[float, float]] | None = None,
    metrics: tuple[str, str] = ("ndcg@20", "calibration_kl@20, nats"),
    most: int = 8,
) -> str:
    """HTML with a slider for each setting: the point on the front, and what one user is shown.

    The text stands alone: no network, no library, ids that are its own, so that a page may hold
    several. Without JavaScript the first setting is shown. Colours follow the page; the custom
    property ``--explorer-accent`` changes the one that is not the text's. In a notebook, wrap it in
    ``IPython.display.HTML``.

    Args:
        sliders: by name, the values that each slider takes, such as alpha and beta. Their S
            combinations are the settings, in the order in which the last slider moves fastest.
        points: (S, 2) the two metrics of each setting; of the first more is better, of the second
            less.
        lists: for each setting, the user's list as (title, category names).
        laws: (S, C) the list's law over the categories.
        interest: (C,) the user's own P_u.
        category_names: the C names.
        user: what the user is called.
        others: by name, two metrics of single methods to compare with.
        metrics: the names of the two metrics.
        most: how many categories get bars, those with the largest share in P_u or in any list.

    Raises:
        ValueError: sizes do not fit the sliders, or a number is not finite.
    """
    values = {name: [f"{value:g}" for value in grid] for name, grid in sliders.items()}
    if not values or not all(values.values()):
        raise ValueError(f"sliders={sliders!r}: expected at least one, each with a value")
    settings = list(itertools.product(*values.values()))
    for name, given in (("points", points), ("lists", lists), ("laws", laws)):
        if len(given) != len(settings):
            raise ValueError(
                f"{name} has {len(given)} settings: the sliders make {len(settings)} of them"
            )
    num_categories = len(category_names)
    point_S2 = _finite("points", points, (len(settings), 2))
    other_O2 = _finite("others", list((others or {}).values()) or np.empty((0, 2)), (None, 2))
    law_SC = _finite("laws", laws, (len(settings), num_categories))
    interest_C = _finite("interest", interest, (num_categories,))

    place, frame = _front_drawing(point_S2, dict(zip(others or {}, other_O2, strict=True)), metrics)
    bars_SC, bars = _bars_drawing(law_SC, interest_C, category_names, most)
    pairs = [[(title, ", ".join(kinds)) for title, kinds in shown] for shown in lists]
    items = {pair: number for number, pair in enumerate(dict.fromkeys(itertools.chain(*pairs)))}
    data = {
        "values": list(values.values()),
        "states": [
            ", ".join(f"{name} = {value}" for name, value in zip(values, setting, strict=True))
            + f" · {metrics[0]}: {y:.3f} · {metrics[1]}: {x:.3f}"
            for setting, (y, x) in zip(settings, point_S2, strict=True)
        ],
        "places": place(point_S2),
        "items": list(items),
        "lists": [[items[pair] for pair in shown] for shown in pairs],
        **bars_SC,
    }
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    text = text.replace("<", "\\u003c")  # no title can end the script
    name = f"fe-{hashlib.sha256(text.encode()).hexdigest()[:8]}-{next(_EXPLORERS)}"
    controls = "".join(
        f"<label>{html.escape(slider)}"
        f'<input type="range" min="0" max="{len(grid) - 1}" step="1" value="0">'
        f"<span>{html.escape(grid[0])}</span></label>"
        for slider, grid in values.items()
    )
    lines = "".join(
        f"<li><span>{html.escape(title)}</span> <small>{html.escape(kinds)}</small></li>"
        for title, kinds in pairs[0]
    )
    user = html.escape(user)
    # Off for MathJax: a title may hold a dollar sign.
    return f"""<div id="{name}" class="front-explorer tex2jax_ignore mathjax_ignore">
<style>{_EXPLORER_CSS}</style>
<div class="fe-controls" hidden>{controls}</div>
<p class="fe-state" aria-live="polite">{html.escape(data["states"][0])}</p>
<div class="fe-pair">
<figure><figcaption>Every setting, and the one chosen</figcaption>{frame}</figure>
<figure><figcaption>Categories: {user}</figcaption>{bars.replace("HATCH", f"{name}-hatch")}</figure>
</div>
<figure><figcaption>The list of {user}; underlined: not in the first list</figcaption>
<ol>{lines}</ol></figure>
<script type="application/json">{text}</script>
<script>{_EXPLORER_JS}("{name}");</script>
</div>
"""


def _finite(name: str, value: object, shape: tuple[int | None, ...]) -> np.ndarray:
    array = np.asarray(value, dtype=float)
    wanted = tuple(array.shape[0] if size is None else size for size in shape)
    if array.shape != wanted or not np.isfinite(array).all():
        raise ValueError(f"{name} of shape {array.shape}: expected finite numbers, {wanted}")
    return array


def _front_drawing(point_S2, others, metrics):
    """A function from metrics to places in the drawing, and the drawing at the first setting."""
    every = np.concatenate([point_S2, *(point[None] for point in others.values())])
    spread = np.ptp(every, axis=0)
    margin = np.where(spread > 0, 0.08 * spread, 0.01)
    low, high = every.min(0) - margin, every.max(0) + margin

    def place(point) -> list:
        y, x = ((np.asarray(point) - low) / (high - low)).T
        x, y = _LEFT + (_RIGHT - _LEFT) * x, _BOTTOM - (_BOTTOM - _TOP) * y
        return np.stack([x, y], -1).round(1).tolist()

    (y_name, x_name) = map(html.escape, metrics)
    parts = [
        f'<svg viewBox="0 0 360 278" role="img" aria-label="{y_name} against {x_name}">',
        f'<path d="M{_LEFT} {_TOP}V{_BOTTOM}H{_RIGHT}" fill="none" stroke="currentColor"/>',
    ]
    for metric in (0, 1):
        values = MaxNLocator(4).tick_values(low[metric], high[metric])
        for value in values[(values >= low[metric]) & (values <= high[metric])]:
            x, y = place(np.where(np.arange(2) == metric, value, low))
            line = f"M{_LEFT} {y}H{_RIGHT}" if metric == 0 else f"M{x} {_TOP}V{_BOTTOM}"
            where = (
                f'x="{_LEFT - 5}" y="{y + 4}" text-anchor="end"'
                if metric == 0
                else f'x="{x}" y="{_BOTTOM + 16}" text-anchor="middle"'
            )
            parts.append(f'<path d="{line}" stroke="currentColor" opacity="0.15"/>')
            parts.append(f"<text {where}>{value:.4g}</text>")
    middle = (_LEFT + _RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{_BOTTOM + 38}" text-anchor="middle">← {x_name}</text>')
    middle = (_TOP + _BOTTOM) / 2
    parts.append(
        f'<text transform="translate(12 {middle}) rotate(-90)" text-anchor="middle">'
        f"{y_name} →</text>"
    )
    kept = pareto_front(point_S2)
    edge = place(point_S2[kept[np.argsort(point_S2[kept, 1], kind="stable")]])
    path = f"M{edge[0][0]} {edge[0][1]}" + "".join(f"H{x}V{y}" for x, y in edge[1:])
    parts.append(f'<path class="fe-front" d="{path}" fill="none" stroke="currentColor"/>')
    for x, y in place(point_S2):
        parts.append(f'<circle cx="{x}" cy="{y}" r="2.5" fill="currentColor" opacity="0.55"/>')
    for name, point in others.items():
        x, y = place(point)
        left = x > middle + 60
        parts.append(
            f'<path d="M{x} {y - 6}l6 6l-6 6l-6 -6z" fill="none" stroke="currentColor"'
            f' stroke-width="1.5"/><text x="{x + (-9 if left else 9)}" y="{y + 4}"'
            f' text-anchor="{"end" if left else "start"}">{html.escape(name)}</text>'
        )
    x, y = place(point_S2[0])
    parts.append(
        f'<g stroke="var(--fe-accent)" stroke-dasharray="3 3">'
        f'<line class="fe-across" x1="{_LEFT}" x2="{_RIGHT}" y1="{y}" y2="{y}"/>'
        f'<line class="fe-down" x1="{x}" x2="{x}" y1="{_TOP}" y2="{_BOTTOM}"/></g>'
        f'<circle class="fe-point" r="7" transform="translate({x} {y})" fill="var(--fe-accent)"'
        f' stroke="currentColor" stroke-width="1.5"/></svg>'
    )
    return place, "".join(parts)


def _bars_drawing(law_SC, interest_C, category_names, most):
    """The bars' widths and labels for each setting, and the drawing at the first setting."""
    weight_C = np.maximum(interest_C, law_SC.max(0))
    order = np.argsort(-weight_C, kind="stable")[:most]
    full = max(float(weight_C[order].max()), 1e-9)
    begin, end = _BARS
    width_SC = ((end - begin) * law_SC[:, order] / full).round(1)
    data = {
        "bars": width_SC.tolist(),
        "shares": [[f"{share:.0%}" for share in law_C[order]] for law_C in law_SC],
        "ends": (begin + width_SC + 5).round(1).tolist(),
    }
    height = 30 + _ROW * len(order)
    parts = [
        f'<svg viewBox="0 0 360 {height}" role="img" aria-label="shares of the categories">'
        '<defs><pattern id="HATCH" width="5" height="5" patternUnits="userSpaceOnUse"'
        ' patternTransform="rotate(45)"><path d="M0 0V5" stroke="var(--fe-accent)"'
        ' stroke-width="5"/></pattern></defs>'
        f'<rect x="{begin}" y="4" width="12" height="11" fill="currentColor" opacity="0.8"/>'
        f'<text x="{begin + 17}" y="14">the user’s own</text>'
        f'<rect x="{begin + 120}" y="4" width="12" height="11" fill="url(#HATCH)"'
        ' stroke="var(--fe-accent)"/>'
        f'<text x="{begin + 137}" y="14">the list</text>'
    ]
    for row, category in enumerate(order):
        y = 26 + _ROW * row
        own = round((end - begin) * interest_C[category] / full, 1)
        parts.append(
            f'<text x="{begin - 6}" y="{y + 17}" text-anchor="end">'
            f"{html.escape(str(category_names[category]))}</text>"
            f'<rect x="{begin}" y="{y}" width="{own}" height="12" fill="currentColor"'
            f' opacity="0.8"/><text x="{begin + own + 5:g}" y="{y + 10}">'
            f"{interest_C[category]:.0%}</text>"
            f'<rect class="fe-bar" x="{begin}" y="{y + 13}" width="{width_SC[0, row]}" height="12"'
            ' fill="url(#HATCH)" stroke="var(--fe-accent)"/>'
            f'<text class="fe-share" x="{data["ends"][0][row]}" y="{y + 23}">'
            f"{data['shares'][0][row]}</text>"
        )
    return data, "".join([*parts, "</svg>"])
