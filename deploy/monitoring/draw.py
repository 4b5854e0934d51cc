#!/usr/bin/env python3
"""Draws the dashboard from what a run of `cargo test --test monitoring` measured, panel by panel where Grafana puts them.

    deploy/monitoring/draw.py target/monitoring/results.json docs/img/dashboard.png

This is no picture of Grafana: the layout, titles, units and queries are the dashboard's, the lines are Prometheus' answers,
and matplotlib draws them.
"""

import collections
import json
import math
import pathlib
import re
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, MaxNLocator

DASHBOARD = pathlib.Path(__file__).resolve().parent.parent / "chart/causeway/files/dashboard.json"
PAPER, PANEL, INK, FAINT = "#111217", "#181b1f", "#d5d6da", "#85868c"
COLOURS = ["#73bf69", "#5794f2", "#f2cc0c", "#ff9830", "#b877d9", "#f2495c", "#8ab8ff", "#96d98d", "#ffb357", "#ca95e5"]
NAMED = {"green": "#73bf69", "orange": "#ff9830", "red": "#f2495c", "text": INK}
UNIT_PIXELS_X, UNIT_PIXELS_Y = 66, 26


def scaled(value, steps):
    for factor, name in steps:
        if abs(value) >= factor:
            return f"{value / factor:.3g} {name}".strip()
    return f"{value:.3g}"


def shown(value, unit, decimals=None):
    if value is None or math.isnan(value):
        return "no data"
    if unit == "percentunit":
        return f"{value * 100:.{decimals}f} %" if decimals is not None else f"{value * 100:.3g} %"
    if unit == "s":
        return scaled(value, [(3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms"), (1e-6, "µs")])
    if unit == "µs":
        return shown(value / 1e6, "s")
    if unit == "bytes":
        return scaled(value, [(2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")])
    if unit == "d":
        return f"{value:.3g} d"
    text = f"{value:.0f}" if decimals == 0 else scaled(value, [(1e6, "M"), (1e3, "k")])
    return text + {"cps": "/s", "reqps": "/s"}.get(unit, "")


def legend(template, labels):
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), template).strip()


def numbers(series):
    return [(float(at), float(value)) for at, value in series["values"]]


def draw_stat(axes, panel, answers):
    axes.set_axis_off()
    defaults = panel["fieldConfig"]["defaults"]
    points = [point for series in answers["A"] for point in numbers(series) if not math.isnan(point[1])]
    value = points[-1][1] if points else None
    colour = "text"
    for step in defaults["thresholds"]["steps"]:
        if value is not None and (step["value"] is None or value >= step["value"]):
            colour = step["color"]
    colour = NAMED[colour]
    text = shown(value, defaults["unit"], defaults.get("decimals"))
    axes.text(0.5, 0.55, text, color=colour, fontsize=20, ha="center", va="center", transform=axes.transAxes, weight="bold")
    if len(points) > 1:
        spark = axes.inset_axes([0, 0, 1, 0.3])
        spark.set_axis_off()
        spark.fill_between(*zip(*points), color=colour, alpha=0.25, linewidth=0)


def draw_lines(axes, panel, answers, start, end):
    defaults = panel["fieldConfig"]["defaults"]
    stacked = defaults["custom"].get("stacking", {}).get("mode") == "normal"
    drawn = []
    for target in panel["targets"]:
        for series in answers[target["refId"]]:
            drawn.append((legend(target["legendFormat"], series["metric"]), numbers(series)))
    if stacked:
        times = sorted({at for _, points in drawn for at, _ in points})
        tables = [collections.defaultdict(float, points) for _, points in drawn]
        heights = [[0 if math.isnan(table[at]) else table[at] for at in times] for table in tables]
        axes.stackplot([at - start for at in times], heights, colors=COLOURS * 9, alpha=0.75, labels=[name for name, _ in drawn])
    else:
        for number, (name, points) in enumerate(drawn):
            # A second without a value is a gap.
            xs, ys = [], []
            for at, value in points:
                if xs and at - start - xs[-1] > 3:
                    xs.append(xs[-1] + 1)
                    ys.append(math.nan)
                xs.append(at - start)
                ys.append(value)
            axes.plot(xs, ys, color=COLOURS[number % len(COLOURS)], linewidth=1.1, label=name)
    axes.set_xlim(0, end - start)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.08)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value, defaults["unit"]) if value else "0"))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{int(value) // 60}:{int(value) % 60:02}"))
    axes.grid(color="#2c2f36", linewidth=0.6)
    axes.tick_params(colors=FAINT, labelsize=7, length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    handles, names = axes.get_legend_handles_labels()
    most = 9 if panel["gridPos"]["w"] < 12 else 14
    if len(names) > most:
        names, handles = names[:most] + [f"and {len(names) - most} more"], handles[:most] + [plt.Line2D([], [], alpha=0)]
    columns = 3 if panel["gridPos"]["w"] < 12 else 5
    axes.legend(handles, names, loc="upper left", bbox_to_anchor=(-0.02, -0.1), ncol=columns, fontsize=6.5, frameon=False,
                labelcolor=INK, handlelength=1, columnspacing=1, borderaxespad=0)


def main():
    source, picture = sys.argv[1:]
    panels = json.loads(DASHBOARD.read_text())["panels"]
    answers = collections.defaultdict(dict)
    for answer in json.loads(pathlib.Path(source).read_text()):
        answers[answer["panel"]][answer["ref"]] = answer["result"]
    times = [float(at) for refs in answers.values() for result in refs.values() for series in result for at, _ in series["values"]]
    start, end = min(times), max(times)
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    width_px, height_px = 24 * UNIT_PIXELS_X, height * UNIT_PIXELS_Y
    figure = plt.figure(figsize=(width_px / 100, height_px / 100), dpi=100, facecolor=PAPER)
    for panel in panels:
        at = panel["gridPos"]
        left, top = at["x"] * UNIT_PIXELS_X, at["y"] * UNIT_PIXELS_Y
        wide, tall = at["w"] * UNIT_PIXELS_X, at["h"] * UNIT_PIXELS_Y

        def place(x, y, w, h):
            return [x / width_px, 1 - (y + h) / height_px, w / width_px, h / height_px]

        if panel["type"] == "row":
            figure.text((left + 8) / width_px, 1 - (top + 17) / height_px, panel["title"], color=INK, fontsize=11, weight="bold")
            continue
        figure.add_axes(place(left + 3, top + 3, wide - 6, tall - 6), facecolor=PANEL, xticks=[], yticks=[], frame_on=True)
        figure.text((left + 12) / width_px, 1 - (top + 20) / height_px, panel["title"], color=INK, fontsize=8.5)
        if panel["type"] == "stat":
            draw_stat(figure.add_axes(place(left + 5, top + 26, wide - 10, tall - 30)), panel, answers[panel["id"]])
        else:
            axes = figure.add_axes(place(left + 58, top + 32, wide - 72, tall - 92), facecolor=PANEL)
            draw_lines(axes, panel, answers[panel["id"]], start, end)
    figure.savefig(picture, facecolor=PAPER)


main()
