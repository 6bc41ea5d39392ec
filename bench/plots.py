"""Plots of a comparison's JSON file that say by themselves what they show."""

import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # no window
from matplotlib import pyplot

from bench.subjects import SUBJECTS

__all__ = ["draw"]

_COLOURS = {
    "layerfs": "#c1121f", "layerfs-nosync": "#e5737b", "docker": "#1d63ed", "podman": "#892ca0",
    "containerd": "#575757", "umoci": "#2a9d8f",
    "buildah": "#e9a23b", "bsdtar": "#9c8b7a", "tar": "#c9bfb4",
}  # fmt: skip
_CURVES = {"layerfs import": _COLOURS["layerfs"], "layerfs pull": _COLOURS["layerfs"], "bsdtar -x": _COLOURS["bsdtar"]}


def draw(path: Path) -> Sequence[Path]:
    """Draw what the JSON file holds; the PNG files, beside it."""
    found = json.loads(path.read_text())
    versions = "; ".join(f"{name}: {', '.join(said)}" for name, said in found["versions"].items())
    foot = f"{found['machine']['processor']}, Linux {found['machine']['kernel']}, {found['machine']['date'][:10]}"
    out = []
    if found["samples"]:
        rounds = found["machine"]["rounds"]
        told = f"{foot}; " + ("one round" if rounds == "1" else f"median of {rounds} rounds, least to most")
        out.append(_bars(found["samples"], f"{told}\n{_wrapped(versions)}", path.with_suffix(".png")))
    if found["growth"]:
        out.append(_curves(found["growth"], foot, path.with_name(f"{path.stem}-growth.png")))
    return out


def _bars(samples: Mapping[str, Mapping[str, Sequence[Mapping[str, float]]]], foot: str, into: Path) -> Path:
    """One panel a subject: seconds of each tool, the time until all was on disk in a lighter shade behind."""
    columns = 3
    rows = math.ceil(len(samples) / columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(16, 2.5 * rows + 1), squeeze=False)
    for axis in axes.flat[len(samples) :]:
        axis.axis("off")
    for axis, (subject, results) in zip(axes.flat, samples.items(), strict=False):
        names = sorted(results, key=lambda name: _middle(results[name], "seconds"), reverse=True)
        seconds = [_middle(results[name], "seconds") for name in names]
        colours = [_COLOURS.get(name, "#888888") for name in names]
        axis.barh(names, [_middle(results[name], "synced") for name in names], color=colours, alpha=0.35)
        low = [s - min(x["seconds"] for x in results[n]) for n, s in zip(names, seconds, strict=True)]
        high = [max(x["seconds"] for x in results[n]) - s for n, s in zip(names, seconds, strict=True)]
        axis.barh(names, seconds, color=colours, xerr=[low, high], error_kw={"lw": 1, "capsize": 2})
        for row, value in enumerate(seconds):
            axis.annotate(f" {_text(value)}", (value, row), va="bottom", fontsize=8)
        axis.set_title(SUBJECTS[subject], fontsize=10)
        axis.set_xlabel("seconds", fontsize=8)
        axis.margins(x=0.2)
    told = "Less is better. Strong: until the command ended; pale: until all it wrote was on disk."
    durability = (
        "layerfs syncs before it says that it is done; layerfs-nosync leaves that to the kernel, as all the others do."
    )
    figure.suptitle(f"{told}\n{durability}\n{foot}")
    return _write(figure, into)


def _curves(growth: Sequence[Mapping[str, Any]], foot: str, into: Path) -> Path:
    """One panel for each thing counted, both axes logarithmic."""
    counted = list(dict.fromkeys(curve["counted"] for curve in growth))
    columns = min(2, len(counted))
    rows = math.ceil(len(counted) / columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(8 * columns, 4.6 * rows + 1), squeeze=False)
    for axis in axes.flat[len(counted) :]:
        axis.axis("off")
    for axis, what in zip(axes.flat, counted, strict=False):
        for curve in (c for c in growth if c["counted"] == what):
            x, y = zip(*curve["points"], strict=True)
            label = f"{curve['title']}: n^{curve['exponent']:.2f}, {_text(y[-1])} at the end"
            axis.loglog(x, y, marker="o", color=_CURVES.get(curve["title"]), label=label)
        axis.set_title(
            f"Time over the number of {what}" if what != "MiB in a layer" else "Time over the size of a layer"
        )
        axis.set_xlabel(what)
        axis.xaxis.set_major_formatter(lambda n, _: f"{n:,.0f}")
        for formatter in (axis.yaxis.set_major_formatter, axis.yaxis.set_minor_formatter):
            formatter(lambda seconds, _: _text(seconds) if f"{seconds:e}"[0] in "125" else "")
        axis.xaxis.set_minor_formatter("")
        axis.tick_params(which="both", labelsize=8)
        axis.grid(alpha=0.3, which="both", linewidth=0.5)
        low, high = axis.get_ylim()
        axis.set_ylim(low, high * (high / low) ** 0.35)  # room for the legend
        axis.legend(fontsize=8, loc="upper left")
    told = "n^1: grows in proportion, n^0: not at all; the exponent is fitted to the right half of each curve"
    figure.suptitle(f"How the time of an operation grows. Less and flatter is better.\n{told}\n{foot}")
    return _write(figure, into)


def _wrapped(text: str, width: int = 170) -> str:
    return "\n".join(textwrap.wrap(text, width))


def _middle(samples: Sequence[Mapping[str, float]], key: str) -> float:
    values = sorted(sample[key] for sample in samples)
    return (values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2


def _text(seconds: float) -> str:
    if seconds < 0.001:
        return f"{seconds * 1e6:.3g} µs"
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def _write(figure: Any, into: Path) -> Path:
    figure.tight_layout()
    figure.savefig(into, dpi=110)
    pyplot.close(figure)
    return into
