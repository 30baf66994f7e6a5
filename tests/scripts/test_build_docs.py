"""Links of a page on the site: to pages by their names there, to files as text, to folders not at all; code stays."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def build_docs() -> ModuleType:
    """Load the script, which stands beside the packages and is not installed."""
    spec = importlib.util.spec_from_file_location("build_docs", ROOT / "scripts" / "build_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["build_docs"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def staging(build_docs: ModuleType, tmp_path: Path) -> Any:
    """Return the staging of a small repository in `tmp_path / "repository"`, into `tmp_path / "stage"`."""
    root = tmp_path / "repository"
    for name in ("docs/guide.md", "docs/edge.md", "docs/path.svg", "README.md", "envelopes/SPEC.md", "bus/gate.py"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name, encoding="utf-8")
    (root / "agents/examples").mkdir(parents=True)
    return build_docs.Staging(tmp_path / "stage", root)


@pytest.mark.parametrize(
    ("page", "written", "staged"),
    [
        ("docs/guide.md", "[a](edge.md#b)", "[a](edge.md#b)"),
        ("docs/guide.md", "[a](../README.md#quick-tour)", "[a](index.md#quick-tour)"),
        ("docs/guide.md", "[SPEC](../envelopes/SPEC.md)", "[SPEC](spec.md)"),
        ("README.md", "![a](docs/path.svg)", "![a](path.svg)"),
        ("README.md", "[a [b]\nc](docs/guide.md)", "[a [b]\nc](guide.md)"),
        ("envelopes/SPEC.md", "[a](../docs/guide.md)", "[a](guide.md)"),
        ("docs/guide.md", "[`gate.py`](../bus/gate.py), x", "[`gate.py`](source/bus/gate.py.txt), x"),
        ("docs/guide.md", "see [bus](../bus).", "see bus."),
        ("docs/guide.md", "[a](../agents/examples)", "[a](examples.md)"),
        ("docs/guide.md", "[a](#b) [c](https://example.org/d.md)", "[a](#b) [c](https://example.org/d.md)"),
        ("docs/guide.md", "```\n[a](../README.md)\n```\n", "```\n[a](../README.md)\n```\n"),
    ],
)
def test_links_are_those_of_the_site(staging: Any, page: str, written: str, staged: str) -> None:
    assert staging.rewritten(page, written) == staged


def test_what_is_linked_to_is_laid_beside_the_pages(staging: Any, tmp_path: Path) -> None:
    staging.rewritten("docs/guide.md", "[a](../bus/gate.py) ![b](path.svg)")
    assert (tmp_path / "stage/source/bus/gate.py.txt").read_text() == "bus/gate.py"
    assert (tmp_path / "stage/path.svg").is_file()


def test_a_link_to_what_is_not_there_is_no_page(staging: Any) -> None:
    with pytest.raises(FileNotFoundError):
        staging.rewritten("docs/guide.md", "[a](../bus/none.py)")


def test_every_page_of_the_repository_has_a_place_of_its_own(build_docs: ModuleType) -> None:
    found = build_docs.pages()
    assert all((ROOT / path).is_file() for path in found)
    assert len(set(found.values())) == len(found)


@pytest.mark.parametrize(
    ("heading", "anchor"), [("Anti-patterns, and `x_y`", "anti-patterns-and-x_y"), ("What is *not*", "what-is-not")]
)
def test_anchors_are_those_of_a_forge(build_docs: ModuleType, heading: str, anchor: str) -> None:
    slug: Callable[[str, str], str] = build_docs.slug_function()
    assert slug(heading, "-") == anchor
