"""The colours of every figure and of the page: one set that reads on white and on near-black.

Each series colour has a contrast of at least 3:1 to both surfaces (WCAG 1.4.11 for graphics), and the first five stay
apart for readers with deuteranopia or protanopia (the tests compute both). Hues after Paul Tol's "vibrant" scheme, at
a middle lightness. Lines differ in dash as well, so colour is never alone.
"""

from __future__ import annotations

SURFACES = {"light": "#ffffff", "dark": "#15181d"}
SERIES = ("#0077bb", "#d9661f", "#18a38c", "#d10045", "#6a55f5", "#857a6e")
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)), (0, (9, 2)), (0, (3, 1, 1, 1, 1, 1)))
ID, OOD = SERIES[0], SERIES[1]

BELOW, CHANCE, ABOVE = "#b8501a", "#e9e7e2", "#0b5f94"
"""Heat map: AUROC 0.5 in the middle; below chance towards orange, above towards blue."""


def linear(colour: str) -> tuple[float, float, float]:
    """``#rrggbb`` as linear-light RGB in 0..1."""
    parts = (int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5))
    return tuple(c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2) of ``#rrggbb``."""
    r, g, b = linear(colour)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(a: str, b: str) -> float:
    """Contrast ratio (WCAG 2) of two colours, 1 to 21."""
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def mix(a: str, b: str, t: float) -> str:
    """The colour a share ``t`` (0..1) of the way from ``a`` to ``b``, mixed channel by channel."""
    pairs = ((int(a[i:i + 2], 16), int(b[i:i + 2], 16)) for i in (1, 3, 5))
    return "#" + "".join(f"{round(x + (y - x) * t):02x}" for x, y in pairs)


def heat(auroc: float) -> tuple[str, str]:
    """Cell and text colour for an AUROC in 0..1. Above chance the scale is curved: 90 and 99 must look different."""
    share = min(max(2 * auroc - 1, -1), 1)
    cell = mix(CHANCE, ABOVE, share ** 2) if share >= 0 else mix(CHANCE, BELOW, abs(share) ** 0.7)
    return cell, max(("#000000", "#ffffff"), key=lambda ink: contrast(cell, ink))
