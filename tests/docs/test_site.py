"""The documents as a site: it builds without a warning, holds every page, and loads nothing from elsewhere.

Links that a reader follows may lead anywhere. What a browser loads by itself may not: a page that is read tells nobody so.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "build_docs.py"
LINKS = {"a", "meta"}
"""Elements whose addresses a browser does not load."""
FETCHING = ("mermaid", "glightbox", "md-source", "pyodide", "data-md-component=source")
"""Classes and parts of the theme whose script loads something from elsewhere."""

pytestmark = [pytest.mark.docs, pytest.mark.slow]


class Loaded(HTMLParser):
    """Collects what a page has a browser load, and the anchors that it has."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.classes: set[str] = set()
        self.anchors: set[str] = set()
        self.styles: list[str] = []
        self._style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._style = tag == "style"
        for name, value in attrs:
            if name in {"src", "href", "srcset", "data", "poster", "action", "xlink:href"} and tag not in LINKS:
                self.addresses.append(value or "")
            elif name == "style":
                self.styles.append(value or "")
            elif name == "class":
                self.classes |= set((value or "").split())
            elif name == "id":
                self.anchors.add(value or "")

    def handle_data(self, data: str) -> None:
        if self._style:
            self.styles.append(data)


def loaded(text: str) -> Loaded:
    page = Loaded()
    page.feed(text)
    return page


def foreign_styles(text: str) -> list[str]:
    """Return what a style sheet loads from elsewhere."""
    found = re.findall(r"(?:url\(|@import)\s*[\"']?([^\"')\s;]+)", text)
    return [one for one in found if is_foreign(one)]


def is_foreign(address: str) -> bool:
    return re.match(r"\s*(?:https?:|//)", address) is not None


def require_zensical() -> None:
    """Skip the test without what builds the site, or fail it in CI."""
    if importlib.util.find_spec("zensical") is None:
        if os.environ.get("CI"):
            pytest.fail("there is no zensical: `make tools` installs it")
        pytest.skip("there is no zensical: `make tools` installs it")


def build(folder: Path, settings: str) -> subprocess.CompletedProcess[str]:
    """Build what stands in `folder / "build/docs"`, as `make docs` does."""
    (folder / "zensical.toml").write_text(settings, encoding="utf-8")
    if not (folder / "src").exists():
        (folder / "src").symlink_to(ROOT / "src")
    code = f"import sys; sys.path.insert(0, {str(SCRIPT.parent)!r}); from pathlib import Path; import build_docs"
    return subprocess.run(
        [sys.executable, "-c", f"{code}; sys.exit(build_docs.build(Path({str(folder)!r})))"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site in a folder of its own."""
    require_zensical()
    folder = tmp_path_factory.mktemp("site")
    subprocess.run([sys.executable, str(SCRIPT), "--stage", str(folder / "build/docs")], check=True, timeout=300)
    finished = build(folder, (ROOT / "zensical.toml").read_text(encoding="utf-8"))
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return folder / "site"


def test_every_page_is_there_and_in_the_navigation(site: Path) -> None:
    staged = {path.relative_to(site.parent / "build/docs") for path in (site.parent / "build/docs").rglob("*.md")}
    assert len(staged) > 40
    assert [page for page in staged if not (site / page.with_suffix(".html")).is_file()] == []
    named = set(re.findall(r'= "([^"]+\.md)"', (ROOT / "zensical.toml").read_text(encoding="utf-8")))
    assert named == {page.as_posix() for page in staged}


def test_a_browser_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    for path in pages:
        page = loaded(path.read_text(encoding="utf-8"))
        assert page.addresses, path
        assert [one for one in page.addresses if is_foreign(one)] == [], path
        assert [found for text in page.styles for found in foreign_styles(text)] == [], path
        assert page.classes & set(FETCHING) == set(), path
    for path in [*site.rglob("*.css"), *site.rglob("*.svg")]:
        assert foreign_styles(path.read_text(encoding="utf-8")) == [], path


def test_code_is_shown_as_code(site: Path) -> None:
    for path in site.rglob("*.html"):
        text = re.sub(r"<(code|pre|script)\b.*?</\1>", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        assert "```" not in text, path


def test_pages_have_what_they_are_for(site: Path) -> None:
    codes = loaded((site / "reference/codes.html").read_text(encoding="utf-8"))
    assert {"denied", "approval_required"} <= codes.anchors
    python = (site / "reference/python.html").read_text(encoding="utf-8")
    assert "Declare a handler of durable tasks" in python
    assert (site / "source/tests/attack/test_edge_tokens.py.txt").is_file()


def test_a_link_that_leads_nowhere_ends_the_build(tmp_path: Path) -> None:
    require_zensical()
    (tmp_path / "build/docs").mkdir(parents=True)
    settings = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]
    small = f'[project]\nsite_name = "x"\ndocs_dir = "{settings["docs_dir"]}"\nsite_dir = "site"\n'
    page = tmp_path / "build/docs/index.md"
    page.write_text("# A\n\n[there](#a)\n", encoding="utf-8")
    assert build(tmp_path, small).returncode == 0
    for link in ("none.md", "#none"):
        page.write_text(f"# A\n\n[nowhere]({link})\n", encoding="utf-8")
        assert build(tmp_path, small).returncode != 0


@pytest.mark.parametrize(
    "text",
    [
        '<script src="https://cdn.example/x.js"></script>',
        '<link rel="stylesheet" href="//cdn.example/x.css">',
        '<img srcset="https://cdn.example/x.png 2x">',
        '<iframe src="http://cdn.example/"></iframe>',
    ],
)
def test_what_is_loaded_is_found(text: str) -> None:
    assert any(map(is_foreign, loaded(text).addresses))
    assert not any(map(is_foreign, loaded('<a href="https://example.org">x</a><img src="x.svg">').addresses))


@pytest.mark.parametrize("text", ["@import 'https://x.example/a.css'", "a { background: url(//x.example/b.png) }"])
def test_what_a_style_loads_is_found(text: str) -> None:
    assert foreign_styles(text)
    assert not foreign_styles("a { background: url(data:image/png;base64,x) } @import 'own.css';")
