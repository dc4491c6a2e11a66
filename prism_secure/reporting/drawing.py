"""How figures look, and how they become part of a page: inline SVG, no display, no file.

Colours are CSS variables (`--ink`, `--faint`, `--paper`, `--one` to `--six`), which the page sets
for light, dark and print; text stays text, in the page's font (`--font`). The page takes the series' colours
from Okabe and Ito's palette (2008), which people with every kind of colour vision tell apart; markers differ
as well. On white its orange and its green are darker: words are in them, too.
"""

from __future__ import annotations

import html
import io
import re
from typing import TYPE_CHECKING, Any

from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType  # of newer versions alone

__all__ = [
    "DASHES", "FAINT", "INK", "LIGHT", "MARKS", "ONE", "ON_WHITE", "PAPER", "SERIES", "SIZE", "STYLE",
    "THREE", "TWO", "as_svg", "decade", "standalone",
]  # fmt: skip

# Matplotlib wants true colours; these stand for the page's variables and are replaced in the SVG.
INK, FAINT, PAPER, ONE, TWO, THREE, FOUR, FIVE, SIX = (f"#0a0a0{digit}" for digit in range(1, 10))
_VARIABLES = {
    INK: "ink", FAINT: "faint", PAPER: "paper",
    ONE: "one", TWO: "two", THREE: "three", FOUR: "four", FIVE: "five", SIX: "six",
}  # fmt: skip
SERIES = (ONE, TWO, THREE, FOUR, FIVE, SIX)
"""In this order; each has a mark of its own beside it."""
MARKS = ("o", "s", "^", "D", "v", "P")

LIGHT = {
    "ink": "#1d2329", "faint": "#d5dbe1", "paper": "#ffffff",
    "one": "#0072b2", "two": "#b85000", "three": "#007f5c",
    "four": "#b0578f", "five": "#2f9fd8", "six": "#a87400",
}  # fmt: skip
"""The variables' colours on white, as page.css has them: for files of their own."""
ON_WHITE = {stand_in: LIGHT[name] for stand_in, name in _VARIABLES.items()}
"""The same by what stands for them while a figure is drawn."""

SIZE = (5.2, 3.9)
STYLE: dict[RcKeyType, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "prism-secure",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "lines.linewidth": 2.0,
    "lines.markersize": 5.5,
}
DASHES = (0, (4, 2))


def decade(power: int) -> str:
    """10 to an integer power, as an axis has it.

    >>> decade(2), decade(-5)
    ('100', '10⁻⁵')
    """
    if -3 <= power <= 3:
        return f"{10.0**power:g}"
    return "10" + str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def as_svg(figure: Figure, name: str, description: str) -> str:
    """The figure as an `<svg>` element for any page: no size, font, colour or id of its own."""
    FigureCanvasSVG(figure)
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->|<style.*?</style>", "", svg, flags=re.DOTALL)  # the style is for all elements
    svg = re.sub(r' (?:width|height)="[\d.]+pt"', "", svg, count=2)
    svg = re.sub(r' xmlns(?::\w+)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r"'DejaVu Sans'[^;\"]*", "var(--font)", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var(--{variable})")
    referenced = set(re.findall(r"#([\w-]+)", svg))
    svg = re.sub(
        r' id="([^"]*)"', lambda match: f' id="{name}-{match[1]}"' if match[1] in referenced else "", svg
    )
    svg = re.sub(r"(url\(|href=\")#", rf"\1#{name}-", svg)
    start = f'<svg role="img" stroke-linejoin="round" aria-labelledby="{name}-title"'
    title = f'<title id="{name}-title">{html.escape(description)}</title>'
    return svg.replace("<svg", start, 1).replace(">", f">{title}", 1)


def standalone(svg: str) -> str:
    """An inline figure as a file of its own: on white, and of a size (it is drawn in points)."""
    for name, value in (LIGHT | {"font": "DejaVu Sans, sans-serif"}).items():
        svg = svg.replace(f"var(--{name})", value)
    found = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    assert found is not None
    width, height = (round(float(side) * 4 / 3) for side in found.groups())
    size = f'width="{width}" height="{height}"'
    start = f'<svg xmlns="http://www.w3.org/2000/svg" {size} style="background: #ffffff"'
    return svg.replace("<svg", start, 1)
