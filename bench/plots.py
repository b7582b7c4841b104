"""Draws what the benchmarks measured: from `bench/results/*.json` into `docs/figures/*.svg`, for the documentation."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import typer
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.lib.harness import console
from bench.lib.measured import RESULTS

FIGURES = Path(__file__).parents[1] / "docs" / "figures"
_MEGABYTE = 1 << 20
_SIZE, _TALL = (8.0, 4.0), (8.0, 6.0)
"""Inches."""


def latencies(chats: Mapping[str, Any]) -> Figure:
    """Histograms of the time that a chat's messages take, at each rate, each way."""
    figure = Figure(figsize=_SIZE, layout="constrained")
    ways = list(dict.fromkeys(row["way"] for row in chats["results"]))
    for axes, way in zip(_row_of(figure, len(ways)), ways, strict=True):
        for row in chats["results"]:
            if row["way"] == way:
                bounds = [bound for bound, _ in row["histogram"]]
                shares = [100 * count / row["samples"] for _, count in row["histogram"]]
                label = f"{row['rate']:.0f}/s (p50 {row['p50_ms']:.0f} ms)"
                axes.step(bounds, shares, where="pre", label=label)
        axes.set(title=way, xscale="log", xlabel="milliseconds", ylabel="percent of messages")
        axes.legend(fontsize="small")
        axes.set_ylim(0, 1.3 * axes.get_ylim()[1])
    figure.suptitle(f"Messages of chats, {chats['options']['tenants']} tenants")
    return figure


def throughput(pageviews: Mapping[str, Any]) -> Figure:
    """How many a second of each kind, and how long they take at a part of that."""
    figure = Figure(figsize=_TALL, layout="constrained")
    many, few = (figure.add_subplot(2, 1, position) for position in (1, 2))
    at_most = [row for row in pageviews["results"] if ", at " not in row["name"]]
    at_a_rate = [row for row in pageviews["results"] if ", at " in row["name"]]
    _bars(many, [row["name"] for row in at_most], [row["per_second"] for row in at_most])
    many.set(title="As many as go", xlabel="a second")
    _bars(few, [row["name"] for row in at_a_rate], [row["latency"]["p50_ms"] for row in at_a_rate])
    few.set(title="At a steady rate", xlabel="milliseconds (median)")
    return figure


def memory(sessions: Mapping[str, Any]) -> Figure:
    """What the pool process holds with so many visitors online; beside it, client sessions."""
    figure = Figure(figsize=_SIZE, layout="constrained")
    (axes,) = _row_of(figure, 1)
    visitors = [row["visitors"] for row in sessions["results"]]
    axes.plot(visitors, [row["resident"] / _MEGABYTE for row in sessions["results"]], marker="o", label="the pool")
    each = sessions["client_sessions"]["bytes_each"]
    shown = visitors[-1] // 250
    axes.plot([0, shown], [0, shown * each / _MEGABYTE], label=f"a client session each ({each / 1000:.0f} kB)")
    axes.set(title="Memory of visitors online", xlabel="visitors online", ylabel="megabytes", ylim=(0, None))
    axes.legend()
    return figure


PLOTS: Mapping[str, tuple[str, Callable[[Mapping[str, Any]], Figure]]] = {
    "latencies": ("chats", latencies),
    "throughput": ("pageviews", throughput),
    "memory": ("sessions", memory),
}
"""Each figure's benchmark and what draws it."""


def _row_of(figure: Figure, count: int) -> list[Axes]:
    return [figure.add_subplot(1, count, position + 1) for position in range(count)]


def _bars(axes: Axes, names: Sequence[str], values: Sequence[float]) -> None:
    bars = axes.barh(range(len(names)), values)
    axes.set_yticks(range(len(names)), names)
    axes.bar_label(bars, [f"{value:,.0f}" if value >= 100 else f"{value:.1f}" for value in values], padding=2)  # noqa: PLR2004 - three digits
    axes.invert_yaxis()
    axes.set_xlim(0, max(values) * 1.15)


def main() -> None:
    """Draw what was measured; a benchmark that was not run is left out."""
    # the same numbers give the same file
    mpl.rcParams["svg.hashsalt"] = "orchestrator"
    FIGURES.mkdir(exist_ok=True)
    for name, (benchmark, draw) in PLOTS.items():
        measured = RESULTS / f"{benchmark}.json"
        if not measured.exists():
            console.print(f"{name}: script/bench {benchmark} was not run")
            continue
        target = FIGURES / f"{name}.svg"
        draw(json.loads(measured.read_text())).savefig(target, metadata={"Date": None})
        console.print(f"Drawn: {target}")


if __name__ == "__main__":
    typer.run(main)
