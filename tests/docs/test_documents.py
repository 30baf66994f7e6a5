"""What the documents point at is there: links, anchors, commands with their options, diagrams."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import click
import pytest

from sealbus.agents.cli.main import root

ROOT = Path(__file__).parent.parent.parent
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("docs/decisions/*.md"),
        ROOT / "envelopes" / "SPEC.md",
        ROOT / "policies" / "rego" / "README.md",
    )
)

FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
SVG = "{http://www.w3.org/2000/svg}"


def blocks(text: str, kind: str) -> list[str]:
    return [body for language, body in FENCE.findall(text) if language == kind]


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives the headings of `text`."""
    found: set[str] = set()
    for heading in HEADING.findall(FENCE.sub("", text)):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
        number = 0
        while (name := f"{slug}-{number}" if number else slug) in found:
            number += 1
        found.add(name)
    return found


def broken_links(text: str, folder: Path) -> Iterator[str]:
    """Yield the relative links of `text`, which stands in `folder`, that lead nowhere, or out of the repository."""
    for target in LINK.findall(FENCE.sub("", text)):
        if target.startswith(("https://", "http://", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        path = (folder / name).resolve()
        there = path.exists() and path.is_relative_to(ROOT)
        if there and anchor:
            there = anchor in anchors(path.read_text(encoding="utf-8") if name else text)
        if not there:
            yield target


def commands(text: str) -> Iterator[list[str]]:
    """Yield the arguments of each `sealbus` in the `sh` blocks of `text`."""
    for block in blocks(text, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            found = re.match(r"(?:\w+=\$\()?sealbus (.*?)\)?$", line.strip())
            if found is not None:
                yield shlex.split(found[1], comments=True)


def check_command(arguments: list[str]) -> None:
    """Raise unless there is such a command and it has these options; nothing is run."""
    name, *rest = arguments
    context = click.Context(root)
    command = root.get_command(context, name)
    while isinstance(command, click.Group):
        command = command.get_command(context, rest.pop(0))
    if command is None:
        raise LookupError(name)
    command.make_parser(click.Context(command)).parse_args(rest)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    path = ROOT / document
    assert not list(broken_links(path.read_text(encoding="utf-8"), path.parent))


MODULE = re.compile(r"`((?:agents|bus|policies|envelopes|tests)/[\w/]+)`")
"""What a document calls by its place: a module without `.py`, or a folder."""


def lost_modules(text: str) -> list[str]:
    """Return the modules and folders in `text` that are not there."""
    return [one for one in MODULE.findall(text) if not ((ROOT / one).is_dir() or (ROOT / f"{one}.py").is_file())]


@pytest.mark.parametrize("document", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_modules_stand_where_a_document_says(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    assert len(MODULE.findall(text)) > 30
    assert lost_modules(text) == []


def test_a_module_that_is_not_there_is_found() -> None:
    assert lost_modules("`bus/gate/gate` and `bus/gate/none`") == ["bus/gate/none"]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_and_their_options_are_there(document: str) -> None:
    for arguments in commands((ROOT / document).read_text(encoding="utf-8")):
        check_command(arguments)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_diagrams_are_pictures(document: str) -> None:
    # A site's reader would fetch what draws Mermaid from elsewhere.
    assert blocks((ROOT / document).read_text(encoding="utf-8"), "mermaid") == []


def lists_read_otherwise(text: str) -> Iterator[str]:
    """Yield items of lists that a forge shows and the site does not, which wants an empty line before, or four spaces."""
    lines = FENCE.sub("", text).splitlines()
    inside = False
    for before, line in itertools.pairwise(["", *lines]):
        item = re.match(r"( *)(?:[-*]|\d+\.) ", line)
        if item is not None and (
            0 < len(item[1]) < 4 or not (item[1] or inside or not before or before.startswith("#"))
        ):
            yield line
        inside = item is not None or (inside and (not line or line.startswith(" ")))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_lists_are_lists_everywhere(document: str) -> None:
    assert not list(lists_read_otherwise((ROOT / document).read_text(encoding="utf-8")))


@pytest.mark.parametrize("text", ["So:\n- one\n", "So:\n1. one\n", "- one\n  - two\n"])
def test_a_list_that_is_none_everywhere_is_found(text: str) -> None:
    assert list(lists_read_otherwise(text))
    assert not list(lists_read_otherwise(text.replace("So:\n", "So:\n\n").replace("  - ", "    - ")))


@pytest.mark.parametrize("picture", sorted(path.name for path in ROOT.glob("docs/*.svg")))
def test_pictures_are_accessible_and_load_nothing(picture: str) -> None:
    text = (ROOT / "docs" / picture).read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)  # noqa: S314  a file of ours
    assert root.tag == f"{SVG}svg"
    labels = root.get("aria-labelledby", "").split()
    told = {child.get("id"): child.text for child in root if child.tag in (f"{SVG}title", f"{SVG}desc")}
    assert len(labels) == 2
    assert all((told.get(label) or "").strip() for label in labels)
    kinds = {element.tag.removeprefix(SVG) for element in root.iter()}
    assert not kinds & {"script", "foreignObject", "image", "use", "a"}
    names = {name for element in root.iter() for name in element.attrib}
    assert not [name for name in names if name.startswith("on") or name.endswith("href")]
    assert set(re.findall(r"url\((.)", text)) <= {"#"}
    assert "@import" not in text
    assert "@font-face" not in text
    assert "prefers-color-scheme: dark" in text


@pytest.mark.parametrize(
    "link",
    ["[a](none.md)", "![a](none.svg)", "[a](#none)", "[a](../README.md#none)", "[a](../../outside)", "[a](../../etc)"],
)
def test_a_link_that_leads_nowhere_is_found(link: str) -> None:
    assert list(broken_links(f"# Heading\n{link}\n[good](#heading) [good](../README.md)", ROOT / "docs"))


def test_headings_have_the_anchors_of_github() -> None:
    text = "# Anti-patterns, and `x_y`\n## Twice\n## Twice\n```sh\n# no heading\n```\n"
    assert anchors(text) == {"anti-patterns-and-x_y", "twice", "twice-1"}


@pytest.mark.parametrize("line", ["sealbus nothing", "sealbus audit none", "T=$(sealbus token --none 1)"])
def test_a_command_that_is_not_there_is_found(line: str) -> None:
    (arguments,) = commands(f"```sh\n{line}\n```\n")
    with pytest.raises((LookupError, click.UsageError)):
        check_command(arguments)
