"""The pages of the site's reference, made from the code: nothing on them is written by hand (part of `make docs`).

Texts are docstrings, help texts of commands, help lines of metrics, and the tables of SPEC.md that tests hold to the code. To
add a page, write a function that returns it and name it in `pages`; to add a column to the codes, see `codes`.
"""

from __future__ import annotations

import ast
import html
import inspect
import re
import types
import typing
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import click
import pydantic
from pydantic_core import PydanticUndefined

import sealbus
import sealbus.testing
from sealbus.agents.cli.explanations import CODES
from sealbus.agents.cli.main import root as root_command
from sealbus.agents.runtime.settings import schema
from sealbus.agents.sdk import options as method_options
from sealbus.bus.stream_names import AUDIT, PEOPLE, TASKS
from sealbus.bus.streams.declared import Stream, declared_streams
from sealbus.envelopes import errors
from sealbus.envelopes.errors import RETRIED_CODES, Code, SealbusError
from sealbus.envelopes.message import subjects
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.envelopes.records.notary import BundleRecord, CheckpointRecord, PolicyRecord
from sealbus.envelopes.records.work import DenialsRecord, OutcomeRecord

ROOT = Path(__file__).resolve().parents[1]
SPEC = ROOT / "envelopes" / "SPEC.md"
LAYERS = ("agents", "bus", "envelopes", "policies")

_PYTHON = """# Python

Everything that agents, clients and tests of agents import. Other modules can change without notice.

"""
_OPTIONS = """
## Options of methods

`Unpack[...Keywords]` in a signature stands for the keyword arguments that the type of this name lists. All are optional.

"""
_COMMANDS = """# Command line

Results go to stdout, with `--json` one JSON object per line; everything else goes to stderr. Exit codes: 0 done, 1 error, 2
usage, 3 denied by policy, 4 something does not verify.

Names are completed with Tab after one of these lines, which belong into `~/.bashrc` or `~/.zshrc`, or, for fish, into
`~/.config/fish/completions/sealbus.fish`:

```sh
eval "$(_SEALBUS_COMPLETE=bash_source sealbus)"
eval "$(_SEALBUS_COMPLETE=zsh_source sealbus)"
_SEALBUS_COMPLETE=fish_source sealbus | source
```
"""
_SETTINGS = """# Settings

Settings stand in `sealbus.toml`; the environment overrides them (`SEALBUS_POLICY__ENGINE` is `policy.engine`), and options of
a command override both. An unknown key is an error. `sealbus doctor` shows those in force, and where each comes from.
"""
_CODES = """# Codes

A code never changes its meaning. *Step* is the acceptance step of [SPEC.md](../spec.md#7-acceptance) that finds it; *again*
says that a task or event that fails with it is tried again until it expires. `sealbus explain CODE` tells the same.

"""
_METRICS = """# Metrics

`--health HOST:PORT` of a worker, an edge or control serves them at `/metrics` as Prometheus text. A label set beyond 512 of
one name is counted under `other`. A histogram `x` is shown as `x_bucket`, `x_sum` and `x_count`. [How to use
them](../telemetry.md#metrics).

"""
_AFTER_STREAMS = """
`sealbus streams plan` compares the streams of a server with this; `sealbus streams apply` makes them so. TASKS and AUDIT have
no default size: how much they may hold must be said (`streams.max_bytes`).
"""
_RECORDS = """# Records

What stands in the stream AUDIT. Every record is in a sealed message, signed by who recorded it; the bytes are in [SPEC.md,
section 8](../spec.md#8-audit). `sealbus audit replay --json` prints records as JSON.
"""
"""How each page begins."""

RECORDS = (DecisionRecord, OutcomeRecord, BundleRecord, PolicyRecord, CheckpointRecord, DenialsRecord)
"""The record kinds, in the order of SPEC.md section 8."""


def pages() -> dict[str, str]:
    """Return the text of each page, by its name in the folder `reference` of the site."""
    return {
        "python.md": python(),
        "commands.md": commands(),
        "settings.md": settings(),
        "codes.md": codes(),
        "metrics.md": metrics(),
        "subjects.md": subject_names(),
        "records.md": records(),
    }


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table in Markdown; what a cell holds stays in it."""
    heads = list(head)
    lines = [heads, ["---"] * len(heads), *([_cell(one) for one in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _cell(text: str) -> str:
    # In code a stroke is taken as it is, and a backslash before it would be shown.
    return outside_code(" ".join(text.split()), lambda part: part.replace("|", "\\|"))


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """Return `text` with `change` made to what is not code in it."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(one if one.startswith("`") else change(one) for one in parts)


def _first_paragraph(text: str | None) -> str:
    return " ".join(inspect.cleandoc(text or "").split("\n\n")[0].split())


# Python.


def python() -> str:
    """Return the page of what `from sealbus import ...` gives, `sealbus.testing`, and the options that methods take.

    mkdocstrings fills it in.
    """
    homes = sorted((name, getattr(sealbus, name).__module__) for name in sealbus.__all__)
    testing = [("TestBus", "sealbus.testing"), ("LiveBus", "sealbus.testing")]
    blocks = [
        f"## {name}\n\n`from {'sealbus' if home != 'sealbus.testing' else home} import {name}`\n\n"
        f"::: {home}.{name}\n    options:\n      show_root_heading: false\n"
        for name, home in [*homes, *testing]
    ]
    keywords = [
        f"### {name}\n\n::: {method_options.__name__}.{name}\n"
        "    options:\n      show_root_heading: false\n      inherited_members: true\n"
        for name in vars(method_options)
        if name.endswith("Keywords") and not name.startswith("_")
    ]
    return _PYTHON + "\n".join(blocks) + _OPTIONS + "\n".join(keywords)


# The command line.


def commands() -> str:
    """Return the page of all commands, with their arguments and options."""
    below = [_command(path, command) for path, command in walk(root_command, ("sealbus",)) if len(path) > 1]
    return "\n".join([_COMMANDS, *below])


def walk(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield a command and all below it, each with the words that call it."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=path[-1])
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is None:
                raise LookupError(name)
            yield from walk(below, (*path, name))


def _command(path: tuple[str, ...], command: click.Command) -> str:
    words = " ".join(path)
    context = click.Context(command, info_name=words)
    usage = " ".join([words, *command.collect_usage_pieces(context)])
    options = [one for one in command.params if isinstance(one, click.Option) and not one.hidden]
    parts = [f"{'#' * min(len(path), 3)} {words}\n", f"```\n{usage}\n```\n", f"{_help(command)}\n"]
    if options:
        rows = [_option(one, context) for one in options]
        parts.append(table(("option", "meaning"), rows))
    return "\n".join(parts)


def _help(command: click.Command) -> str:
    text = inspect.cleandoc(command.help or command.short_help or "")
    # Click shows what follows \f to nobody, and keeps the lines after \b as they are.
    paragraphs = text.split("\f")[0].split("\n\n")
    return "\n\n".join(
        f"```\n{one[2:].strip(chr(10))}\n```" if one.startswith("\b") else _literal(one) for one in paragraphs
    )


def _literal(text: str) -> str:
    """Return a text for terminals as Markdown: nothing in it is a tag or emphasis, but for its code."""
    return outside_code(text, lambda part: re.sub(r"([*_\[\]])", r"\\\1", html.escape(part, quote=False)))


def _option(option: click.Option, context: click.Context) -> tuple[str, str]:
    # What `--help` prints of it, with its metavar and default.
    record = option.get_help_record(context)
    if record is None:
        raise LookupError(option.name)
    words, help_ = record
    return f"`{words}`", _literal(help_)


# Settings.


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: its key in `sealbus.toml`, its type in words, and its default."""

    key: str
    form: str
    default: str


@dataclass(slots=True)
class Section:
    """One table of `sealbus.toml`: its heading, what is said of it, and its settings."""

    name: str
    text: str
    settings: list[Setting] = field(default_factory=list)


_WORDS: Mapping[object, str] = types.MappingProxyType(
    {
        schema.Id: "SPIFFE ID",
        schema.Domain: "trust domain",
        schema.Size: "size, such as `512MiB`",
        schema.Server: "`tls://host:port`",
        schema.Addresses: "one or several of: file or URL",
        schema.SubjectPattern: "subject pattern",
        schema.InputPointer: "JSON pointer",
        Path: "file or folder",
        str: "text",
        bool: "true or false",
        int: "whole number",
        float: "number",
        object: "anything",
    }
)


def sections(model: type[pydantic.BaseModel] = schema.Document, prefix: str = "") -> Iterator[Section]:
    """Yield the tables below a model, each table before those in it."""
    here = Section(prefix.removesuffix("."), inspect.cleandoc(model.__doc__ or ""))
    below: list[tuple[str, type[pydantic.BaseModel]]] = []
    hints = typing.get_type_hints(model, include_extras=True)
    for name, one in model.model_fields.items():
        inner, key = _inner(hints[name]), f"{prefix}{name}"
        if inner is not None:
            below.append((f"{key}.<name>." if typing.get_origin(hints[name]) is dict else f"{key}.", inner))
        else:
            here.settings.append(Setting(key, _form(hints[name]), _default(one.get_default(call_default_factory=True))))
    if model.model_config.get("extra") == "allow":
        here.settings.append(Setting(f"{prefix}<name>", _form(schema.Id), "none"))
    yield here
    for key, inner in below:
        yield from sections(inner, key)


def _inner(hint: object) -> type[pydantic.BaseModel] | None:
    """Return the table that a setting is, or holds by name or as a list."""
    for one in (hint, *typing.get_args(hint)):
        if inspect.isclass(one) and issubclass(one, pydantic.BaseModel):
            return one
    return None


def _form(hint: object) -> str:
    """Return a type in words."""
    if hint in _WORDS:
        return _WORDS[hint]
    if hint == schema.FileOrUrl:
        return "file or URL"
    arguments, origin = typing.get_args(hint), typing.get_origin(hint)
    if origin is typing.Literal:
        return " or ".join(f"`{one}`" for one in arguments)
    if origin is typing.Annotated:
        return _form(arguments[0]) + "".join(_bounds(one) for one in arguments[1:])
    if origin in {typing.Union, types.UnionType}:
        return " or ".join(_form(one) for one in arguments if one is not type(None))
    if origin is tuple:
        return f"list of: {_form(arguments[0])}"
    if origin is dict:
        return f"table, by {_form(arguments[0])}, of: {_form(arguments[1])}"
    raise LookupError(f"no words for {hint}")


def _bounds(metadata: object) -> str:
    if not isinstance(metadata, pydantic.fields.FieldInfo):
        return ""
    found = {name: getattr(one, name) for one in metadata.metadata for name in ("ge", "gt", "le") if hasattr(one, name)}
    least = f"from {found['ge']:,}" if "ge" in found else f"over {found['gt']:,}" if "gt" in found else ""
    most = f"to {found['le']:,}" if "le" in found else ""
    return f" {least} {most}".rstrip() if least or most else ""


def _default(value: object) -> str:
    if value is PydanticUndefined:
        return "required"
    if value is None or value in ((), {}):
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return ", ".join(f"`{one}`" for one in value)
    return f"`{value:,}`" if isinstance(value, int) else f"`{value}`"


def settings() -> str:
    """Return the page of all settings, table by table."""
    parts = [_SETTINGS]
    for one in sections():
        if one.name:
            parts.append(f"## {one.name}\n\n{_literal(one.text)}\n")
        if one.settings:
            rows = ((f"`{each.key}`", each.form, each.default) for each in one.settings)
            parts.append(table(("key", "type", "default"), rows))
    return "\n".join(parts)


# Codes.

_CODE_ROW = re.compile(r"^\| `(\w+)` \|([^|]*)\|([^|]*)\|([^|]*)\|$", re.MULTILINE)


def codes() -> str:
    """Return the page of all codes, with what is to be done about each, as `sealbus explain` says."""
    said = {code: (step.strip(), meaning.strip()) for code, step, _, meaning in _CODE_ROW.findall(_section("Codes"))}
    raised = defaultdict(list)
    for error in _errors(SealbusError):
        if isinstance(code := vars(error).get("code"), Code):
            raised[code].append(f"`{error.__name__}`")
    rows = (
        (
            f'`{code}`{{ id="{code}" }}',
            said[code.value][0],
            "yes" if code in RETRIED_CODES else "",
            said[code.value][1],
            CODES[code].fault.split(":")[0],
            CODES[code].advice,
            ", ".join(raised[code]),
        )
        for code in Code
    )
    return (
        _CODES
        + table(("code", "step", "again", "meaning", "whose fault", "what next", "error in Python"), rows)
        + f"\nThe errors, and whose fault each is:\n\n```\n{_tree()}\n```\n"
    )


def _errors(error: type[SealbusError]) -> Iterator[type[SealbusError]]:
    yield error
    for below in error.__subclasses__():
        if below.__module__ == errors.__name__:
            yield from _errors(below)


def _tree() -> str:
    return inspect.cleandoc((errors.__doc__ or "").split("::\n\n")[1].split("\n\n")[0])


def _section(heading: str) -> str:
    """Return the text of a numbered section of SPEC.md."""
    text = SPEC.read_text(encoding="utf-8")
    [found] = re.findall(rf"^## \d+\. {heading}$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return str(found)


# Metrics.


@dataclass(slots=True)
class Metric:
    """A counter, gauge or histogram: its help line, its labels, and the modules that count it."""

    text: str = ""
    kind: str = "counter"
    labels: set[str] = field(default_factory=set)
    modules: set[str] = field(default_factory=set)


_KINDS = types.MappingProxyType({"gauge": "gauge", "gauges": "gauge", "histogram": "histogram"})
"""Kind of metric by the method of `Counters` that makes it, whose second argument are its labels."""
_METRIC = re.compile(r"sealbus_[a-z_]+")


def find_metrics(root: Path = ROOT) -> dict[str, Metric]:
    """Return all metrics by name, found in the code: what is counted, described, or shown as a gauge."""
    found: defaultdict[str, Metric] = defaultdict(Metric)
    for path in (path for layer in LAYERS for path in sorted((root / layer).rglob("*.py"))):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        constants = {
            target.id: value
            for node in tree.body
            if isinstance(node, ast.Assign | ast.AnnAssign) and (value := _metric(node.value, {})) is not None
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Dict):
                for key, value in zip(node.keys, node.values, strict=True):
                    name_ = _metric(key, constants)
                    if name_ is not None and isinstance(value, ast.Constant):
                        found[name_].text = str(value.value)
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
                kind = _KINDS.get(node.func.attr, "counter")
                for name in _names(node.args[0], constants):
                    found[name].kind = kind
                    if kind == "counter":
                        found[name].labels |= {one.arg for one in node.keywords if one.arg}
                    elif len(node.args) > 1 and isinstance(node.args[1], ast.Tuple):
                        found[name].labels |= {str(ast.literal_eval(one)) for one in node.args[1].elts}
                    found[name].modules.add(path.relative_to(root).as_posix())
    return dict(found)


def _metric(node: ast.AST | None, constants: Mapping[str, str]) -> str | None:
    if isinstance(node, ast.Name):
        return constants.get(node.id)
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and _METRIC.fullmatch(node.value):
        return node.value
    return None


def _names(node: ast.AST, constants: Mapping[str, str]) -> list[str]:
    """Return the names that an expression may be: `add("a" if b else "c")` counts either."""
    inside = [node.body, node.orelse] if isinstance(node, ast.IfExp) else [node]
    return [name for one in inside if (name := _metric(one, constants)) is not None]


def metrics() -> str:
    """Return the page of all metrics."""
    rows = (
        (
            f"`{name}`",
            one.kind,
            ", ".join(f"`{label}`" for label in sorted(one.labels)),
            one.text,
            ", ".join(f"`{module}`" for module in sorted(one.modules)),
        )
        for name, one in sorted(find_metrics().items())
    )
    return _METRICS + table(("name", "kind", "labels", "meaning", "counted in"), rows)


# Subjects and streams.


def subject_names() -> str:
    """Return the page of subjects, from the functions that make them, and of the streams as they are declared."""
    made = [
        (name, _first_paragraph(function.__doc__).removeprefix("Return "))
        for name, function in inspect.getmembers(subjects, inspect.isfunction)
        if name.endswith("_subject") and function.__module__ == subjects.__name__ and not name.startswith("_")
    ]
    streams = declared_streams({TASKS: 1, AUDIT: 1, PEOPLE: 1})
    return (
        "# Subjects and streams\n\n## Subjects\n\n"
        + "".join(f"- {text}\n" for _, text in made)
        + "\nKinds of messages and who may send them: [SPEC.md, section 3](../spec.md#3-header).\n\n## Streams\n\n"
        + table(("stream", "subjects", "holds", "kept for", "when full", "deleting"), map(_stream, streams))
        + _AFTER_STREAMS
    )


def _stream(stream: Stream) -> tuple[str, ...]:
    hours = f"{stream.max_age // 3_600} h {stream.max_age % 3_600 // 60} min"
    return (
        f"`{stream.name}`",
        ", ".join(f"`{one}`" for one in stream.subjects),
        stream.description.removeprefix("sealbus: "),
        "ever" if not stream.max_age else hours if stream.max_age < 2 * 86_400 else f"{stream.max_age // 86_400} days",
        "refuses" if stream.discard == "new" else "drops the oldest",
        "forbidden" if stream.deny_delete else "possible",
    )


# Records.


def record_kind(record: type) -> str:
    """Return the kind of a record, as it stands in its key `k`."""
    kind = inspect.getattr_static(record, "kind")
    return kind if isinstance(kind, str) else "decision"


def records() -> str:
    """Return the page of the records in AUDIT: what each class says, and the keys on the wire."""
    spec = _section("Audit")
    parts = [_RECORDS]
    for record in RECORDS:
        kind = record_kind(record)
        [(said, keys)] = re.findall(rf"^`{kind}`: (.*?)\n\n((?:\|.*\n)+)", spec, re.MULTILINE | re.DOTALL)
        parts += [
            f"## {kind}\n\n{said[0].upper()}{said[1:]}\n\n{keys}",
            f"In Python: `{record.__module__}.{record.__name__}`.\n",
        ]
    return "\n".join(parts)
