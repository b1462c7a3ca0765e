"""A picture of measured points, as SVG that needs no library to draw or to show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 720, 420, 70, 40, 110, 50


def scatter(points: Sequence[tuple[str, float, float]], x_name: str, y_name: str, title: str) -> str:
    """Draw (label, x, y) with x on a logarithmic axis and both axes cut to what is there."""
    xs, ys = [math.log2(x) for _, x, _ in points], [y for _, _, y in points]
    left, right = math.floor(min(xs)), math.ceil(max(xs))
    low, high = math.floor(min(ys) * 10) / 10, 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - left) / (right - left or 1) * (WIDTH - LEFT - RIGHT)
        up = (y - low) / (high - low or 1) * (HEIGHT - TOP - BOTTOM)
        return LEFT + across, HEIGHT - BOTTOM - up

    lines = [_text(LEFT, 22, title, size=15), _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x_name, "middle")]
    lines.append(_text(8, TOP - 6, y_name))
    for step in range(left, right + 1):
        x, bottom = place(step, low)
        lines += [_line(x, TOP, x, bottom), _text(x, bottom + 18, f"{2**step:g}", "middle")]
    for tenth in range(round(low * 10), 11):
        _, y = place(left, tenth / 10)
        lines += [_line(LEFT, y, WIDTH - RIGHT, y), _text(LEFT - 8, y + 4, f"{tenth / 10:g}", "end")]
    for (label, _, _), x, y in zip(points, xs, ys, strict=True):
        across, down = place(x, y)
        lines.append(f'<circle cx="{across:.1f}" cy="{down:.1f}" r="4" fill="#1f6feb"/>')
        lines.append(_text(across + 7, down + 13, label))
    size = f'width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif">\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>\n' + "\n".join(lines) + "\n</svg>\n"
    )


def bars(values: Sequence[tuple[str, float]], title: str, target: float | None = None) -> str:
    """Draw (label, value ≥ 0) as horizontal bars, each with its value, the axis to 1 or further; a line at a target."""
    longest = max(len(label) for label, _ in values)
    step, left = 30, max(170, 7 * longest)
    wide = (650 - left) / max(1.0, *(value for _, value in values))
    height = TOP + step * len(values) + 10
    lines = [_text(10, 24, title, size=15)]
    if target is not None:
        lines.append(_line(left + wide * target, TOP - 6, left + wide * target, height - 8, "#d1242f"))
    for place, (label, value) in enumerate(values):
        y = TOP + step * place
        lines.append(_text(left - 8, y + 16, label, "end"))
        lines.append(f'<rect x="{left}" y="{y}" width="{wide * value:.1f}" height="{step - 8}" fill="#1f6feb"/>')
        lines.append(_text(left + wide * value + 6, y + 16, f"{value:.3f}"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="sans-serif">\n<rect width="{WIDTH}" height="{height}" fill="white"/>\n'
        + "\n".join(lines)
        + "\n</svg>\n"
    )


def _text(x: float, y: float, text: str, anchor: str = "start", size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="#222">{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, color: str = "#ddd") -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}"/>'
