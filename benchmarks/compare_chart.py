"""The chart of the comparison, as SVG text: the same numbers always give the same file."""

from collections.abc import Mapping
from html import escape

COLOURS = {"static": "#c0763a", "dynamic": "#2f6f9f"}
_LEFT, _WIDTH, _BAR, _GAP, _TOP = 210, 420, 13, 12, 40


def chart(shares: Mapping[str, Mapping[str, float]], seconds: Mapping[str, float | None]) -> str:
    """Bars of the mean share that is right, by criterion and way, and of the median time.

    Args:
        shares: from 0 to 1, by way, by criterion.
        seconds: by way.
    """
    names = list(dict.fromkeys(name for found in shares.values() for name in found))
    parts, y = [_text(_LEFT, 20, "mean share that is right, over all models", "start", bold=True)], _TOP
    for name in names:
        values = {way: found[name] for way, found in shares.items() if name in found}
        parts += _group(name, values, {way: f"{value:.0%}" for way, value in values.items()}, 1.0, y)
        y += len(shares) * _BAR + _GAP
    times = {way: value for way, value in seconds.items() if value is not None}
    if times:
        parts += _group("median time", times, {way: f"{t:.1f} s" for way, t in times.items()}, max(times.values()), y)
        y += len(seconds) * _BAR + _GAP
    for index, way in enumerate(shares):
        parts.append(f'<rect x="{_LEFT + 90 * index}" y="{y}" width="12" height="12" fill="{COLOURS[way]}"/>')
        parts.append(_text(_LEFT + 90 * index + 17, y + 10, way, "start"))
    size = f'width="{_LEFT + _WIDTH + 70}" height="{y + 24}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>"]) + "\n"


def _group(name: str, values: Mapping[str, float], texts: Mapping[str, str], most: float, y: int) -> list[str]:
    parts = [_text(_LEFT - 8, y + _BAR * len(values) // 2 + 4, name, "end")]
    for index, (way, value) in enumerate(values.items()):
        top, width = y + index * _BAR, round(_WIDTH * value / (most or 1), 1)
        parts.append(f'<rect x="{_LEFT}" y="{top}" width="{width}" height="{_BAR - 1}" fill="{COLOURS[way]}"/>')
        parts.append(_text(_LEFT + width + 5, top + _BAR - 2, texts[way], "start"))
    return parts


def _text(x: float, y: float, text: str, anchor: str, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}"{weight}>{escape(text)}</text>'
