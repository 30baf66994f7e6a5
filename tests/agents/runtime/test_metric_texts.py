"""Each metric of the code says what it means, once, and nothing else does."""

from __future__ import annotations

import re
from pathlib import Path

from sealbus.agents.runtime.metric_texts import METRIC_TEXTS

ROOT = Path(__file__).parents[3]
NAME = re.compile(
    r'"(sealbus_[a-z_]*(?:total|seconds|bytes|messages|records|processes|servers|consumers|answers|entries|away|assets|info|ready|connected))"'
)
DESCRIBED = re.compile(r'"(sealbus_[a-z_]+)": "')


def test_each_metric_is_described_once() -> None:
    texts = ROOT / "agents" / "runtime" / "metric_texts.py"
    sources = [
        path.read_text() for layer in ("agents", "bus") for path in (ROOT / layer).rglob("*.py") if path != texts
    ]
    counted = {name for text in sources for name in NAME.findall(text)}
    elsewhere = {name for text in sources for name in DESCRIBED.findall(text)}
    # The edge's listener describes two by names of its own.
    elsewhere |= {name for name in counted if name.startswith("sealbus_edge_connections")}
    assert METRIC_TEXTS.keys() & elsewhere == set()
    assert METRIC_TEXTS.keys() | elsewhere == counted


def test_texts_are_sentences_of_one_line() -> None:
    assert [text for text in METRIC_TEXTS.values() if re.fullmatch(r"[A-Z][^\n]{10,90}\.", text) is None] == []
