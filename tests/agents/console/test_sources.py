"""What the pages are made of: no way from text to markup, nothing inline, nothing from elsewhere, no build step."""

from __future__ import annotations

import re

import pytest
from support.console_server import STATIC

MODULES = sorted(STATIC.glob("*.js"))
SINKS = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment|setHTML|parseHTML|srcdoc"
    r"|\beval\(|new Function|setTimeout\(\s*[\"'`]|import\(|\.cssText|\"style\"|javascript:|document\.cookie"
    r"|localStorage|sessionStorage"
)


def test_there_are_modules() -> None:
    assert len(MODULES) > 10
    assert {path.suffix for path in STATIC.iterdir()} == {".html", ".css", ".js", ".svg"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_no_text_becomes_markup_or_code(path: object) -> None:
    assert SINKS.findall((STATIC / str(path)).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_imports_are_files_beside_it(path: object) -> None:
    for name in re.findall(r"from \"([^\"]+)\"", (STATIC / str(path)).read_text(encoding="utf-8")):
        assert re.fullmatch(r"\./[a-z_]+\.js", name)
        assert (STATIC / name).is_file()


def test_the_page_has_nothing_inline_and_nothing_from_elsewhere() -> None:
    page = (STATIC / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"\sstyle=|<style|\son[a-z]+=|https?://|<script(?![^>]*\ssrc=)", page)
    for name in re.findall(r"(?:src|href)=\"/static/([^\"]+)\"", page):
        assert (STATIC / name).is_file()
    preloaded = set(re.findall(r"modulepreload\" href=\"/static/([^\"]+)\"", page))
    assert preloaded == {path.name for path in MODULES} - {"app.js"}, "else they come one after the other"
    assert not re.search(r"https?://|@import|url\(", (STATIC / "app.css").read_text(encoding="utf-8"))
