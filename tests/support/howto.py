"""How-to pages, run: their blocks become files by the mark before each, and the tests among these are run.

A block is marked `<!-- file: NAME -->`, a file of that name; JSON of a policy's registry is added to the starter policy's.
Commands are marked `<!-- run -->`. Blocks without a language are what is printed, and stand for themselves.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

from sealbus.policies.bundle.files import STARTER

__all__ = ["commands_of", "files_of", "lay", "run_tests_of", "unmarked"]

_MARKED = re.compile(r"^<!-- file: (\S+) -->\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MARK = re.compile(r"<!-- (file: \S+|run) -->\n\Z")
_REGISTRY = re.compile(r"policy/sealbus/registry/\w+/data\.json")


def files_of(page: str) -> dict[str, str]:
    """Return the files of a page by name; a name that is used twice is an error of the page."""
    found = _MARKED.findall(page)
    names = [name for name, _ in found]
    assert len(set(names)) == len(names), names
    return dict(found)


def commands_of(page: str, mark: str = "run") -> list[str]:
    """Return the commands of the blocks after a mark, in lists too, each with the lines that it goes on in."""
    blocks = re.findall(rf"^ *<!-- {mark} -->\n *```sh\n(.*?)^ *```$", page, re.MULTILINE | re.DOTALL)
    return re.findall(r"(?:.*\\\n)*.+\n", "".join(map(dedent, blocks)))


def unmarked(page: str) -> list[str]:
    """Return the blocks in some language that nothing runs."""
    return [block[2] for block in _BLOCK.finditer(page) if block[1] and not _MARK.search(page[: block.start()])]


def lay(page: str, folder: Path) -> None:
    """Write the files of a page into a folder; a registry is the starter policy's with the page's lines in it."""
    files = files_of(page)
    if any(_REGISTRY.fullmatch(name) for name in files):
        shutil.copytree(STARTER, folder / "policy")
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if _REGISTRY.fullmatch(name):
            text = json.dumps(_merged(json.loads(path.read_text(encoding="utf-8")), json.loads(text)))
        path.write_text(text, encoding="utf-8")


def run_tests_of(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the tests in a folder in a process of their own, as a reader would."""
    command = [sys.executable, "-m", "pytest", "--quiet", "-p", "no:cacheprovider", "--asyncio-mode=auto", str(folder)]
    return subprocess.run(
        [*command, "--rootdir", str(folder)], cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )


def _merged(there: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    return there | {
        key: _merged(there[key], value) if isinstance(value, dict) and isinstance(there.get(key), dict) else value
        for key, value in more.items()
    }
