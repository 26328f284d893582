"""The comparison as bars: how long, and with how much memory, the same checkpoint takes each way."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cases import CASES

if TYPE_CHECKING:
    from bench.report import Entry

_COLORS = {"ours": "#d1495b", "limit": "#9aa5b1", "peer": "#30638e"}


def plot(entries: Sequence[Entry], path: Path) -> None:
    """A picture with a pair of panels for each entry, time and memory; none where nothing was measured."""
    entries = [entry for entry in entries if entry.best(entry.row.ours)]
    if not entries:
        return
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    count = max(len(entry.samples) for entry in entries)
    figure = Figure(figsize=(12, (0.34 * count + 1.2) * len(entries) + 0.4), layout="constrained", dpi=120)
    panels = figure.subplots(len(entries), 2, squeeze=False, sharey="row", width_ratios=[3, 2])
    for (left, right), entry in zip(panels, entries, strict=True):
        _panels(left, right, entry)
    handles = [
        Patch(color=_COLORS["ours"], label="bridge"),
        Patch(color=_COLORS["limit"], label="limit of the machine"),
    ]
    handles.append(Patch(color=_COLORS["peer"], label="other ways to the same arrays"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, metadata={"Software": None})


def _panels(left: Any, right: Any, entry: Entry) -> None:
    names = [name for name in entry.samples if entry.best(name) and not entry.samples[name].failed]
    names.sort(key=lambda name: entry.best(name) or 0, reverse=True)
    ours = entry.best(entry.row.ours) or 1
    colors = [_COLORS[CASES[name].kind] for name in names]
    labels = [CASES[name].title.replace("*", "").replace("`", "") for name in names]
    ratios = [(entry.best(name) or 0) / ours for name in names]
    bars = left.barh(labels, ratios, color=colors)
    left.bar_label(bars, [f"{ratio:.2g}" if ratio < 10 else f"{ratio:.0f}" for ratio in ratios], padding=3, fontsize=8)
    left.set_xscale("log")
    left.xaxis.set_major_formatter("{x:g}")
    left.set_xlim(min(ratios) * 0.7, max(ratios) * 1.6)
    left.set_xlabel("time, × bridge (median, logarithmic)")
    left.set_title(entry.title, loc="left", fontsize=11)
    found = [entry.samples[name] for name in names]
    peaks = [max(sample.anon, default=0) / sample.final if sample.final else 0.0 for sample in found]
    bars = right.barh(labels, peaks, color=colors)
    right.bar_label(bars, [f"{peak:.2f}" if peak else "" for peak in peaks], padding=3, fontsize=8)
    right.set_xlim(0, max(peaks) * 1.15 + 0.1)
    right.set_xlabel("peak anonymous memory, × final arrays")
    for panel in (left, right):
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=9)
