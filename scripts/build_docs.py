"""Build the documents as a site (`make docs`): lay the pages into one folder, generate the reference, run zensical.

Documents link to each other and to code by relative paths in the repository. On the site all pages are in one folder, except
decision records and the reference. The build rewrites each link to a page to the page's place there. A link to any other
file leads to a copy of the file as text. A link to a folder without a page becomes plain words. Nothing in the repository is
written for the site alone.

Usage: build_docs.py [--stage FOLDER]    with FOLDER only the pages are laid there, and nothing is built
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STAGE = ROOT / "build" / "docs"

ELSEWHERE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "agents/examples/README.md": "examples.md",
    "examples/README.md": "projects.md",
    "examples/llm_team/README.md": "example-llm-team.md",
    "examples/migration/README.md": "example-migration.md",
    "deploy/compose/README.md": "deploy-compose.md",
    "deploy/kubernetes/README.md": "deploy-kubernetes.md",
    "deploy/local/README.md": "deploy-local.md",
    "deploy/regions/README.md": "deploy-regions.md",
    "deploy/local/opa/README.md": "deploy-opa.md",
    "envelopes/SPEC.md": "spec.md",
    "policies/platform/README.md": "platform-policy.md",
    "policies/rego/README.md": "starter-policy.md",
}
"""Pages that stand outside docs/, and their names on the site."""

DECISIONS = "docs/decisions"
"""The folder of decision records: on the site it stays a folder, and its README is the index."""

STYLE = "docs/site.css"
_PICTURES = (".png", ".svg")
_FENCE = re.compile(r"^( *)```.*?^\1```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^)\s]+)\)")
_OUTSIDE = re.compile(r"[a-z]+:")


def github_slug(heading: str, separator: str = "-") -> str:
    """Return the anchor that a forge gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", separator)


def slug_function() -> Callable[[str, str], str]:
    """Return `github_slug`, for zensical, which calls what its settings name."""
    return github_slug


def pages(root: Path = ROOT) -> dict[str, str]:
    """Return the name on the site of each page that is written by hand, by its path in the repository."""
    found = {path.relative_to(root).as_posix(): path.name for path in sorted((root / "docs").glob("*.md"))}
    for path in sorted((root / DECISIONS).glob("*.md")):
        found[path.relative_to(root).as_posix()] = f"decisions/{path.name.replace('README', 'index')}"
    return found | ELSEWHERE


def outside_fences(text: str, change: Callable[[str], str]) -> str:
    """Return `text` with `change` made to all of it that is not in a block of code."""
    parts, at = [], 0
    for fence in _FENCE.finditer(text):
        parts += [change(text[at : fence.start()]), fence[0]]
        at = fence.end()
    return "".join([*parts, change(text[at:])])


class Staging:
    """Lays the pages of `root` into the folder `stage`, with what they link to."""

    def __init__(self, stage: Path, root: Path = ROOT) -> None:
        self._stage = stage
        self._root = root
        self._pages = pages(root)

    def all(self) -> None:
        """Lay every page that is written by hand, and the site's own style."""
        for path in self._pages:
            self.page(path)
        shutil.copyfile(self._root / STYLE, self._stage / Path(STYLE).name)

    def page(self, path: str) -> None:
        """Lay one page, its links rewritten."""
        text = (self._root / path).read_text(encoding="utf-8")
        self.write(self._pages[path], self.rewritten(path, text))

    def write(self, name: str, text: str) -> None:
        """Lay a page."""
        file = self._stage / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")

    def rewritten(self, path: str, text: str) -> str:
        """Return the text of the page at `path` with links as they are on the site."""
        return outside_fences(text, lambda part: _LINK.sub(lambda link: self._link(path, link), part))

    def _link(self, path: str, link: re.Match[str]) -> str:
        mark, words, target = link.groups()
        # Pictures with links around them are not used here; links within the words of a link neither.
        if _OUTSIDE.match(target) or target.startswith("#"):
            return link[0]
        name, hash_, anchor = target.partition("#")
        found = (self._root / path).parent / name
        there = Path(os.path.normpath(found)).relative_to(self._root)
        if found.is_dir():
            there /= "README.md"
        if there.as_posix() in self._pages:
            there = Path(self._pages[there.as_posix()])
        elif found.is_dir():
            return words
        else:
            there = self._file(there)
        start = Path(self._pages[path]).parent
        return f"{mark}[{words}]({Path(os.path.relpath(there, start)).as_posix()}{hash_}{anchor})"

    def _file(self, path: Path) -> Path:
        """Lay a file that is no page: a picture as it is, anything else as text, so that a browser shows it."""
        name = Path(path.name) if path.suffix in _PICTURES else Path("source") / path.with_name(f"{path.name}.txt")
        (self._stage / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self._root / path, self._stage / name)
        return name


def stage(folder: Path) -> None:
    """Lay all pages, those that are written and those that are generated, into `folder`, which is emptied."""
    import docs_reference

    shutil.rmtree(folder, ignore_errors=True)
    staging = Staging(folder)
    staging.all()
    for name, text in docs_reference.pages().items():
        staging.write(f"reference/{name}", text)


def build(folder: Path = ROOT, environment: Mapping[str, str] = os.environ) -> int:
    """Build the site by the zensical.toml in `folder`, and return zensical's exit code; a warning is an error."""
    # The settings name a function of this file.
    path = os.pathsep.join([str(Path(__file__).parent), environment.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict", "--config-file", "zensical.toml"]
    return subprocess.run(command, cwd=folder, env={**environment, "PYTHONPATH": path}, check=False).returncode


def main() -> int:
    """Stage, build, and say how long it took."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--stage", type=Path, help="only lay the pages into this folder")
    arguments = parser.parse_args()
    begun = time.monotonic()
    stage(arguments.stage or STAGE)
    if arguments.stage is not None:
        return 0
    code = build()
    if code == 0:
        sys.stdout.write(f"built site/index.html in {time.monotonic() - begun:.1f} s\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
