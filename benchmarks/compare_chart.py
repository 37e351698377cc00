"""The chart of the comparison, as SVG text: the same numbers always give the same file."""

import io
from collections.abc import Mapping
from typing import Any

COLOURS = {"static": "#c0763a", "dynamic": "#2f6f9f"}
_HEIGHT = 0.38
# Text stays text, and names of elements depend on the drawing alone.
_STYLE = {"svg.fonttype": "none", "svg.hashsalt": "hf2khc", "font.family": "sans-serif", "font.size": 9}


def chart(shares: Mapping[str, Mapping[str, float]], seconds: Mapping[str, float | None]) -> str:
    """Bars of the mean share that is right, by criterion and way, and of the median time.

    Args:
        shares: from 0 to 1, by way, by criterion.
        seconds: by way.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(name for found in shares.values() for name in found))
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(7.5, 1.6 + 0.45 * len(names)), layout="constrained")
        right, time = figure.subplots(2, 1, height_ratios=[max(len(names), 1), 1])
        for index, way in enumerate(shares):
            values = [shares[way].get(name, 0.0) for name in names]
            _bars(right, values, index, len(shares), way, [f"{v:.0%}" if n in shares[way] else "not measured"
                                                           for n, v in zip(names, values, strict=True)])  # fmt: skip
            spent = seconds.get(way)
            _bars(time, [spent or 0.0], index, len(shares), way, ["" if spent is None else f"{spent:.1f} s"])
        _label(right, names, "mean share that is right, over all models", 1.0)
        right.legend(loc="lower center", bbox_to_anchor=(0.5, 1.12), ncols=2, frameon=False)
        _label(time, ["median time"], "seconds", max([t for t in seconds.values() if t] or [1.0]))
        text = io.StringIO()
        FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None, "Creator": None})
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"


def _bars(axes: Any, values: list[float], index: int, count: int, way: str, texts: list[str]) -> None:
    places = [place + (index - (count - 1) / 2) * _HEIGHT for place in range(len(values))]
    bars = axes.barh(places, values, _HEIGHT, color=COLOURS[way], label=way)
    axes.bar_label(bars, texts, padding=3)


def _label(axes: Any, names: list[str], title: str, most: float) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.15 * most)
    axes.set_title(title, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
