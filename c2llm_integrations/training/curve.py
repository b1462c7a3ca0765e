"""A run's figures as a picture that needs no library: SVG."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT, MARGIN = 640, 320, 50


def curve(values: Sequence[float], title: str) -> str:
    """Draw values from left to right, the vertical axis from 0 to the largest of them."""
    top = max(values, default=0.0) or 1.0
    across = (WIDTH - 2 * MARGIN) / max(1, len(values) - 1)
    points = " ".join(
        f"{MARGIN + across * number:.1f},{HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * value / top:.1f}"
        for number, value in enumerate(values)
    )
    texts = [(10, 24, title), (4, MARGIN + 4, f"{top:.3g}"), (30, HEIGHT - MARGIN + 4, "0")]
    texts.append((WIDTH - MARGIN - 20, HEIGHT - MARGIN + 20, str(len(values))))
    labels = "\n".join(
        f'<text x="{x}" y="{y}" font-size="13" fill="#222">{escape(text)}</text>' for x, y, text in texts
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif">\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>\n{labels}\n'
        f'<polyline points="{points}" fill="none" stroke="#1f6feb" stroke-width="1.5"/>\n</svg>\n'
    )
