"""`sealbus init NAME`: a project that runs, with an agent, its policy and tests of both."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import json
import keyword
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib.resources.abc import Traversable
from itertools import chain
from pathlib import Path
from typing import Final

import click

from sealbus.agents.cli.options import FOLDER, json_option
from sealbus.agents.cli.output import note, print_json

TEMPLATES: Final = {"agent": ("agent",), "two": ("agent", "two"), "llm": ("agent", "two", "llm")}
"""The folders of files of each template. Files of a later folder replace those of an earlier folder."""

_SECOND: Final = "orders/agent.py"
"""The second agent of a template: a copy of the agent of `agent` under another name."""
_EXAMPLE: Final = re.compile(r"\bdemo\b")
"""The agent's name in all templates, where the word has no other meaning."""
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,30}")
_TAKEN: Final = frozenset(
    {"cli", "edge", "exit", "notary", "operator", "orders", "policy", "revoker", "sealbus", "tests", "web"}
)
"""Workloads and folders that every project has besides its agent."""
_HIDDEN: Final = frozenset({"github", "gitignore"})
"""Names that begin with a dot in a project, but not in the package, where tools would use the files."""


@click.command("init")
@click.argument("name")
@click.option("--template", type=click.Choice(list(TEMPLATES)), default="agent", show_default=True)
@click.option(
    "--folder", type=FOLDER, default=None, help="Where the project is made: a new or empty folder.  [default: ./NAME]"
)
@json_option
def command(name: str, template: str, folder: Path | None, as_json: bool) -> None:
    """Make a project with the agent NAME, which is also its Python module: letters, digits and _.

    The template `agent` has one agent. In `two` it asks a second agent. In `llm` a language model asks the second agent.
    """
    _check_name(name)
    place = folder or Path(name)
    try:
        if place.exists() and any(place.iterdir()):
            raise click.ClickException(f"{place} is not empty: give another folder by --folder")
        folders = importlib.resources.files("sealbus") / "templates"
        files = dict(chain.from_iterable(_files(folders / part, "") for part in TEMPLATES[template]))
        if len(TEMPLATES[template]) > 1:
            first = (folders / "agent" / "demo" / "agent.py").read_text(encoding="utf-8")
            files[_SECOND] = _EXAMPLE.sub("orders", first)
        _write(place, {_placed(path, name): _EXAMPLE.sub(name, text) for path, text in files.items()})
    except OSError as error:
        raise click.ClickException(f"{place} cannot be made: {error.strerror}") from error
    if as_json:
        print_json({"name": name, "template": template, "folder": str(place), "files": sorted(_made(place))})
        return
    note(f"{place}: the agent {name}, its policy (policy/), and tests of both")
    note("next:")
    note(f"  cd {place}")
    note("  make test   # makes .venv first")
    note("  make dev    # everything on this machine, until Ctrl-C")


def _check_name(name: str) -> None:
    if _NAME.fullmatch(name) is None:
        raise click.BadParameter("a lower-case letter, then letters, digits and _, at most 31", param_hint="NAME")
    if keyword.iskeyword(name) or keyword.issoftkeyword(name) or name in sys.stdlib_module_names or name in _TAKEN:
        raise click.BadParameter(f"{name} has another meaning already: choose another name", param_hint="NAME")


def _files(folder: Traversable, before: str) -> Iterator[tuple[str, str]]:
    for entry in folder.iterdir():
        path = f"{before}{entry.name}"
        if entry.is_dir():
            if entry.name[0] not in "._":  # files of tools
                yield from _files(entry, f"{path}/")
        else:
            yield path, entry.read_text(encoding="utf-8")


def _placed(path: str, name: str) -> str:
    first, slash, rest = path.partition("/")
    return f"{f'.{first}' if first in _HIDDEN else _EXAMPLE.sub(name, first)}{slash}{_EXAMPLE.sub(name, rest)}"


def _write(place: Path, files: dict[str, str]) -> None:
    """Make the folder as a whole, or not at all."""
    place.absolute().parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.absolute().parent))
    try:
        for path, text in files.items():
            target = temporary / path
            target.parent.mkdir(parents=True, exist_ok=True)
            content = text.replace("SEALBUS_REQUIREMENT", _requirement()) if path == "requirements.txt" else text
            target.write_text(content, encoding="utf-8")
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o777 & ~umask)
        temporary.rename(place)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _requirement() -> str:
    """Return the requirement of the running sealbus for pip: its version, or the place it was installed from (PEP 610)."""
    installed = importlib.metadata.distribution("sealbus")
    origin = installed.read_text("direct_url.json")
    if not origin:
        return f"sealbus=={installed.version}"
    source = json.loads(origin)
    version = source.get("vcs_info")
    place = f"{version['vcs']}+{source['url']}@{version['commit_id']}" if version else source["url"]
    return f"sealbus @ {place}"


def _made(place: Path) -> Iterator[str]:
    return (str(path.relative_to(place)) for path in place.rglob("*") if path.is_file())
