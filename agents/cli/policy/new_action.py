"""`sealbus policy new-action`: declare an action and its callers in the registry of a policy folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sealbus.agents.cli.options import EXISTING_FOLDER, FILE, json_option, workload_id
from sealbus.agents.cli.output import note, print_json

if TYPE_CHECKING:
    from sealbus.envelopes.encoding.strict_json import Json
    from sealbus.envelopes.trust.names import Names
    from sealbus.policies.decision.documents import DataDocument


_MOST = 2**53 - 1
_WEEK = 604_800
"""Seconds that a task waits for an approval at most."""
_REPLY: Mapping[str, Json] = {"user": "none", "resource": "any", "limits": {}, "hours": False}


class FieldLimit(click.ParamType[tuple[str, int]]):
    """Parameter type for `quantity=100`, converted to a field and its largest value."""

    name = "field=number"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        """Return field and number, or fail with a usage error."""
        if isinstance(value, tuple):
            return value
        field, _, most = str(value).partition("=")
        if not field or not (most.isascii() and most.isdecimal()) or len(most) > len(str(_MOST)) or int(most) > _MOST:
            self.fail(f"{value!r} is not FIELD=NUMBER with a whole number from 0 to {_MOST}", param, ctx)
        return field, int(most)


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """An approval that allows values above the limits, up to `over`; people in `queue` are asked for it."""

    queue: str
    over: Mapping[str, int]
    acr: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAction:
    """The action to declare. `callers` are names or SPIFFE IDs. An `event` is granted to the agent that it is named after."""

    name: str
    callers: Sequence[str] = ()
    user: str = "required"
    resource: str = "owned"
    limits: Mapping[str, int]
    hours: bool = False
    event: bool = False
    approval: Approval | None = None


@click.command("new-action")
@click.argument("name", metavar="AGENT.VERB")
@click.option(
    "--agent", "callers", multiple=True, metavar="CALLER", help="A caller that may do it: a name or SPIFFE ID."
)
@click.option("--user", type=click.Choice(["required", "none"]), default="required", show_default=True)
@click.option(
    "--resource",
    type=click.Choice(["owned", "any"]),
    default=None,
    help="owned: only for its owner and managers of its customer. By default owned if a user is required.",
)
@click.option("--limit", "limits", type=FieldLimit(), multiple=True, help="Largest value of a field; may be repeated.")
@click.option("--hours", is_flag=True, help="Only in the business hours of the item's region.")
@click.option(
    "--approval", "queue", metavar="QUEUE", help="Tasks over a limit wait in this queue until a person approves them."
)
@click.option("--over", type=FieldLimit(), multiple=True, help="With --approval: largest value once it is approved.")
@click.option(
    "--acr", multiple=True, help="With --approval: a login that the approving person must have; may be repeated."
)
@click.option(
    "--event", is_flag=True, help="An event that the agent publishes: granted to the agent itself, without a reply."
)
@click.option(
    "--policy", "folder", type=EXISTING_FOLDER, default=Path("policy"), show_default=True, help="The policy folder."
)
@click.option(
    "--config",
    type=FILE,
    default=Path("sealbus.toml"),
    show_default=True,
    help="Settings with the trust domain and the names of agents; example.org without such a file.",
)
@json_option
def command(
    name: str, callers: tuple[str, ...], user: str, resource: str | None, limits: tuple[tuple[str, int], ...],
    hours: bool, queue: str | None, over: tuple[tuple[str, int], ...], acr: tuple[str, ...], event: bool,
    folder: Path, config: Path, as_json: bool,
) -> None:  # fmt: skip
    """Declare the action AGENT.VERB and its reply, and grant them: the action to each CALLER, the reply to the agent."""
    from sealbus.agents.dev.settings_file import read_declared

    if event and callers:
        raise click.UsageError("an --event is granted to the agent that it is named after: leave --agent out")
    ownership = resource or ("owned" if user == "required" and not event else "any")
    if ownership == "owned" and user == "none":
        raise click.UsageError("an owned item needs a user: --user required, or --resource any")
    if queue is None and (over or acr):
        raise click.UsageError("--over and --acr need --approval")
    approval = None if queue is None else Approval(queue=queue, over=dict(over), acr=acr)
    if approval is not None:
        _check(approval, dict(limits), user="none" if event else user)
    action = NewAction(
        name=name, callers=callers, user="none" if event else user, resource=ownership, limits=dict(limits), hours=hours,
        event=event, approval=approval,
    )  # fmt: skip
    changes = declare(folder, action, read_declared(config).names())
    if as_json:
        print_json({file: list(lines) for file, lines in changes.items()})
        return
    for file, lines in changes.items():
        note(f"{folder / file}:")
        for line in lines:
            note(f"  {line}")
    if approval is not None:
        note(f"managers of the item's customer may approve, by {folder}/sealbus/registry/users/data.json")
    if not callers and not event:
        note(f"nobody may do {name} yet: grant it in {folder}/sealbus/registry/agents/data.json")


def _check(approval: Approval, limits: Mapping[str, int], *, user: str) -> None:
    """Raise `UsageError` for an approval that could never be asked for, or that no worker accepts."""
    from sealbus.policies.decision.approval import ApprovalObligation

    if user == "none":
        raise click.UsageError("an --approval needs a user: --user required")
    if not approval.over or any(most <= limits.get(field, most) for field, most in approval.over.items()):
        raise click.UsageError("each --over FIELD=NUMBER is above a --limit of its field, and --approval needs one")
    try:
        ApprovalObligation(queue=approval.queue, text="-", until=_WEEK, acr=tuple(approval.acr), json=b"")
    except ValueError as error:
        raise click.UsageError(f"--approval: {error}") from error


def declare(folder: Path, action: NewAction, names: Names) -> Mapping[str, Sequence[str]]:
    """Write `action` into the registry of the policy `folder`; return the added lines by file.

    Raises `ConfigurationError` for an action that is declared already, for a bad name, and for a folder without a registry;
    nothing is written then. The files keep their form: one action or grant a line, sorted by name.
    """
    from sealbus.envelopes.errors import ConfigurationError
    from sealbus.envelopes.trust.names import is_token
    from sealbus.policies.bundle.files import write_file

    owner, *verbs = action.name.split(".")
    if len(verbs) != 1 or not all(map(is_token, (owner, *verbs))):
        raise ConfigurationError(f"{action.name[:255]!r} is not an action: an agent's name, a dot and a verb")
    actions, agents, callers = (_Document.read(folder, name) for name in ("actions", "agents", "callers"))
    if action.name in actions.content:
        raise ConfigurationError(f"{action.name} is declared in {actions.file} already: change it there")
    itself = str(workload_id(owner, lambda: names))
    asking = [itself] if action.event else [str(workload_id(caller, lambda: names)) for caller in action.callers]
    limits: DataDocument = dict(action.limits)
    needs: DataDocument = {"user": action.user, "resource": action.resource, "limits": limits, "hours": action.hours}
    if action.approval is not None:
        asked_for: DataDocument = {"over": dict(action.approval.over), "queue": action.approval.queue, "until": _WEEK}
        needs["approval"] = asked_for | ({"acr": list(action.approval.acr)} if action.approval.acr else {})
    actions.declare(action.name, needs)
    for caller in asking:
        agents.grant(caller, action.name)
    if not action.event:
        # A verb of sealbus itself, such as `_schedule`, has no reply.
        if not verbs[0].startswith("_"):
            actions.declare(f"{action.name}.reply", _REPLY)
            agents.grant(itself, f"{action.name}.reply")
        callers.ask(owner, asking)
    changed = [document for document in (actions, agents, callers) if document.lines]
    for document in changed:
        write_file(document.text().encode(), document.file, durable=False)
    return {document.file.relative_to(folder).as_posix(): tuple(document.lines) for document in changed}


class _Document:
    """A document of the registry, with the lines that were added to it."""

    def __init__(self, file: Path, content: DataDocument) -> None:
        self.file = file
        self.content = content
        self.lines: list[str] = []

    @classmethod
    def read(cls, folder: Path, name: str) -> _Document:
        from sealbus.envelopes.errors import ConfigurationError
        from sealbus.policies.decision.documents import parse_data

        file = folder / "sealbus" / "registry" / name / "data.json"
        if name == "callers" and not file.exists():
            return cls(file, {})
        try:
            return cls(file, parse_data(file.read_bytes()))
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise ConfigurationError(f"{file} cannot be read: {why}: is {folder} a policy with a registry?") from error

    def declare(self, action: str, needs: Mapping[str, Json]) -> None:
        if action not in self.content:
            self.content[action] = dict(needs)
            self.lines.append(f"{action}: {json.dumps(needs)}")

    def grant(self, agent: str, action: str) -> None:
        entry = self._below(self.content, agent)
        granted = self._below(entry, "actions")
        if granted.get(action) is not True:
            granted[action] = True
            entry["actions"] = {name: granted[name] for name in sorted(granted)}
            self.lines.append(f"{agent} may do {action}")

    def ask(self, token: str, agents: Sequence[str]) -> None:
        """Add `agents` to the callers of the agent `token`, if it is listed. If not, the policy searches all grants."""
        if token in self.content:
            callers = self._below(self.content, token)
            for agent in agents:
                if callers.get(agent) is not True:
                    callers[agent] = True
                    self.lines.append(f"{token} may be asked by {agent}")

    def _below(self, content: DataDocument, name: str) -> DataDocument:
        from sealbus.envelopes.errors import ConfigurationError

        value = content.setdefault(name, {})
        if not isinstance(value, dict):
            raise ConfigurationError(f"{self.file}: {name} is not an object")
        return value

    def text(self) -> str:
        """Return the document as a text with one action or grant a line."""
        if self.file.parent.name != "actions":
            return json.dumps(self.content, indent=2, ensure_ascii=False) + "\n"
        lines = ",\n".join(f"  {_json(name)}: {_needs(self.content[name])}" for name in sorted(self.content))
        return f"{{\n{lines}\n}}\n"


def _needs(needs: Json) -> str:
    if not isinstance(needs, dict) or "approval" not in needs:
        return _json(needs)
    first = _json({name: value for name, value in needs.items() if name != "approval"})[1:-1]
    return f'{{\n    {first},\n    "approval": {_json(needs["approval"])}\n  }}'


def _json(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False)
