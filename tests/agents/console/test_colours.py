"""The colours of the console can be told apart by people who see little contrast: WCAG 2.2, 1.4.3 and 1.4.11."""

from __future__ import annotations

import re

import pytest
from support.console_server import STATIC

_STYLE = (STATIC / "app.css").read_text(encoding="utf-8")
_ROOTS = re.findall(r":root \{(.*?)\}", _STYLE, re.DOTALL)
_SCHEMES = [dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", root)) for root in _ROOTS[:2]]

TEXTS = [
    ("ink", "paper"),
    ("ink", "panel"),
    ("ink", "sunk"),
    ("ink", "seen"),
    ("ink", "no-wash"),
    ("soft", "paper"),
    ("soft", "panel"),
    ("soft", "sunk"),
    ("soft", "no-wash"),
    ("link", "paper"),
    ("link", "panel"),
    ("link", "sunk"),
    ("link", "no-wash"),
    ("no", "paper"),
    ("no", "panel"),
    ("no", "no-wash"),
    ("ok", "panel"),
    ("ok", "ok-wash"),
    ("ok", "sunk"),
    ("wait", "panel"),
    ("wait", "wait-wash"),
    ("wait", "no-wash"),
    ("panel", "ink"),
    ("panel", "soft"),
    ("panel", "no"),
]
"""Text on what it stands on."""
CONTROLS = [("edge", "panel"), ("edge", "paper"), ("no", "panel"), ("ok", "panel"), ("link", "panel")]
"""Borders and signs that mean something."""


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_contrast_is_computed_as_the_standard_has_it() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)


def test_both_schemes_have_the_same_tokens() -> None:
    light, dark = _SCHEMES
    assert light.keys() == dark.keys()
    assert len(light) > 12


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(("ink", "ground"), TEXTS, ids="-on-".join)
def test_text_can_be_read(scheme: int, ink: str, ground: str) -> None:
    assert contrast(_SCHEMES[scheme][ink], _SCHEMES[scheme][ground]) >= 4.5


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(("line", "ground"), CONTROLS, ids="-on-".join)
def test_controls_can_be_seen(scheme: int, line: str, ground: str) -> None:
    assert contrast(_SCHEMES[scheme][line], _SCHEMES[scheme][ground]) >= 3
