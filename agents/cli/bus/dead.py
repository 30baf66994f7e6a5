"""`sealbus dead ls|show|retry|drop`: messages that could not be handled, seen, sent again and deleted."""

from __future__ import annotations

import asyncio
import re
from base64 import b64encode
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import click

from sealbus.agents.cli.options import agent_option, as_option, config_option, json_option, workload_named
from sealbus.agents.cli.output import note, print_json, printable, shown_time

if TYPE_CHECKING:
    from sealbus.agents.identity import WorkloadIdentity
    from sealbus.agents.runtime.settings.settings import Settings
    from sealbus.bus.inspection.dead import DeadLetter, DeadLetterList
    from sealbus.bus.nats.api import StreamState
    from sealbus.bus.nats.connection.connection import Connection

__all__ = ["LetterName", "as_document", "as_line", "command", "shown"]

_BODY: Final = 4_096
"""How many bytes of a body are shown to people."""

_NUMBER: Final = re.compile("#?([0-9]{1,19})")
_NAME: Final = re.compile("[0-9a-fA-F]{32}|[0-9a-fA-F]{64}")


class LetterName(click.ParamType[int | bytes]):
    """Parameter type for a dead letter: its number, or its message's id (32 hex digits) or hash (64)."""

    name = "letter"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int | bytes:
        """Return the sequence or the bytes that `value` stands for, or fail with a usage error."""
        if isinstance(value, int | bytes):
            return value
        text = str(value)
        if _NAME.fullmatch(text):
            return bytes.fromhex(text)
        number = _NUMBER.fullmatch(text)
        if number is None or not 0 < int(number[1]) < 2**63:
            self.fail(f"{text[:80]!r} is neither a number nor 32 or 64 hex digits", param, ctx)
        return int(number[1])


_letters = click.argument("names", metavar="LETTER...", type=LetterName(), nargs=-1, required=True)


@click.group("dead")
def command() -> None:
    """See messages that could not be handled, send them again, or drop them.

    LETTER is the number that `ls` shows, or the id or hash of the message. Letters are kept for 30 days, and the oldest make
    room when their stream is full.
    """


@command.command("ls")
@agent_option("Only what this agent could not handle")
@click.option(
    "--limit", default=50, show_default=True, type=click.IntRange(1, 10_000), help="How many to show, the newest first."
)
@config_option
@as_option("operator")
@json_option
def ls(agent: str | None, limit: int, config: str | None, as_name: str, as_json: bool) -> None:
    """List the newest dead letters with the reasons that their agents gave.

    A letter is the message as its agent received it. It is verified as its agent verified it, as of when it was made, and
    marked UNVERIFIED with a code if that fails; what a key signed that has left the trust bundles since is unknown_key. The
    reason is from an event that the agent sealed, kept for 24 hours; after that it is in the audit stream only (sealbus audit
    replay --message ID). Not verified: that the list is complete, and revocations.
    """
    asyncio.run(_list(agent, limit, config, as_name, as_json=as_json))


@command.command("show")
@_letters
@config_option
@as_option("operator")
@json_option
def show(names: tuple[int | bytes, ...], config: str | None, as_name: str, as_json: bool) -> None:
    """Show each LETTER with its chain, its reason and its body; exit code 4 if one does not verify."""
    raise SystemExit(asyncio.run(_show(names, config, as_name, as_json=as_json)))


@command.command("retry")
@_letters
@click.option(
    "--send-as",
    default=None,
    metavar="NAME",
    help="Send under the identity of this workload, if it runs here; by default that of --as.",
)
@click.option("--without-user", is_flag=True, help="Where the user's context cannot be sent again, send for no user.")
@click.option(
    "--unverified", is_flag=True, help="Send even what cannot be verified any more, because its key is unknown by now."
)
@click.option(
    "--wait",
    is_flag=False,
    flag_value=60.0,
    default=None,
    type=click.FloatRange(0.1, 86_400),
    metavar="[SECONDS]",
    help="Wait for the result (60 s by default) and print it; exit with 3 if it was denied.",
)
@config_option
@as_option("operator")
@json_option
def retry(
    names: tuple[int | bytes, ...],
    send_as: str | None,
    without_user: bool,
    unverified: bool,
    wait: float | None,
    config: str | None,
    as_name: str,
    as_json: bool,
) -> None:
    """Send each LETTER again: as a new task of yours, which is decided anew, under your identity.

    The dead message itself cannot be delivered again, and its requester has been told that it failed. The new task has the
    same subject and body, names the dead one (`re`), and allows no more to follow from it. Its result is yours. The user goes
    along only if the dead message began its chain, you are who sent it, and the user's context may still start a chain;
    otherwise it is refused without --without-user. The letter stays.

    Look first what has happened: after outcome_unknown, or without `once`, the effect may be there already.
    """
    asyncio.run(
        _retry(
            names,
            send_as or as_name,
            config,
            as_name,
            without_user=without_user,
            unverified=unverified,
            wait=wait,
            as_json=as_json,
        )
    )


@command.command("drop")
@_letters
@config_option
@as_option("operator")
@json_option
def drop(names: tuple[int | bytes, ...], config: str | None, as_name: str, as_json: bool) -> None:
    """Delete each LETTER from DEAD for good, once an event of yours that says so is stored.

    The event is event.<you>.dropped, sealed, with the letter's hashes; like all events it is kept for 24 hours, and longer
    only if an agent listens to it: its decision on the event is in the audit stream. Decisions on the dead message itself
    stay there in any case.
    """
    asyncio.run(_drop(names, config, as_name, as_json=as_json))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Desk:
    settings: Settings
    identity: WorkloadIdentity
    connection: Connection
    letters: DeadLetterList
    state: StreamState

    async def find(self, name: int | bytes) -> DeadLetter:
        return await self.letters.find(name, first=self.state.first, last=self.state.last)


@asynccontextmanager
async def _opened(config: str | None, as_name: str) -> AsyncGenerator[_Desk, None]:
    from sealbus.agents.runtime.open import open_connection, reading_profile
    from sealbus.agents.runtime.settings.settings import load_settings
    from sealbus.bus.inspection.dead import DeadLetterList
    from sealbus.bus.nats.api import existing_stream
    from sealbus.bus.nats.transport import NatsTransport
    from sealbus.bus.stream_names import DEAD
    from sealbus.envelopes.trust.bundles import Trust

    settings = load_settings(config).for_command()
    async with open_connection(as_name, settings) as (identity, connection):
        yield _Desk(
            settings=settings,
            identity=identity,
            connection=connection,
            letters=DeadLetterList(
                transport=NatsTransport(connection),
                profile=reading_profile(settings, identity.spiffe_id),
                trust=lambda: Trust(bundles=identity.bundles()),
            ),
            state=await existing_stream(connection.jetstream, DEAD),
        )


async def _list(agent: str | None, limit: int, config: str | None, as_name: str, *, as_json: bool) -> None:
    from sealbus.bus.inspection.dead import dead_subjects

    async with _opened(config, as_name) as desk:
        names = desk.settings.names
        subjects = dead_subjects(names, workload_named(names, agent))
        found = desk.letters.newest(subjects, first=desk.state.first, last=desk.state.last, most=limit)
        async with aclosing(found) as listed:
            async for one in listed:
                if as_json:
                    print_json(as_document(one))
                else:
                    click.echo(printable(as_line(one)))


async def _show(names: tuple[int | bytes, ...], config: str | None, as_name: str, *, as_json: bool) -> int:
    doubtful = False
    async with _opened(config, as_name) as desk:
        for name in names:
            letter = await desk.find(name)
            doubtful = doubtful or bool(letter.refused)
            if as_json:
                body = letter.envelope.body if letter.envelope is not None else letter.payload
                print_json({**as_document(letter), "body": b64encode(body).decode()})
                continue
            for line in shown(letter):
                click.echo(printable(line))
    return 4 if doubtful else 0


async def _retry(
    names: tuple[int | bytes, ...],
    send_as: str,
    config: str | None,
    as_name: str,
    *,
    without_user: bool,
    unverified: bool,
    wait: float | None,
    as_json: bool,
) -> None:
    from sealbus.agents.cli.bus.task import finish
    from sealbus.agents.runtime.client import Client
    from sealbus.agents.sdk.task_handle import TaskHandle
    from sealbus.bus.clocks import wall_clock
    from sealbus.bus.gate.status_reader import AskedTask
    from sealbus.bus.inspection.dead import sent_again
    from sealbus.envelopes.accept.open_request import PendingRequest
    from sealbus.envelopes.errors import Code
    from sealbus.envelopes.message.subjects import action_of
    from sealbus.envelopes.message.user_context import parse_payload

    async with _opened(config, as_name) as desk:
        letters = [await desk.find(name) for name in names]
        own = desk.settings.names.id_of(send_as)
        # All or none: what one of them lacks is said before anything is sent.
        messages = [
            sent_again(one, own, now=wall_clock(), without_user=without_user, unverified=unverified) for one in letters
        ]
        settings = desk.settings
    for one in letters:
        if one.death is not None and one.death.code == Code.OUTCOME_UNKNOWN:
            note(f"#{one.sequence} ended as outcome_unknown: what is sent again may have happened already")
    async with Client(send_as, settings=settings) as bus:
        for letter, message in zip(letters, messages, strict=True):
            posted = await bus.node.outbox.publish(message)
            header, context = posted.sealed.header, message.draft.context
            handle: TaskHandle[object] = TaskHandle(
                task=AskedTask(
                    pending=PendingRequest.of(header),
                    action=action_of(header.to, bus.node.deployment.own_subjects),
                    context=parse_payload(context.payload) if context is not None else None,
                ),
                reader=bus.node.status_reader,
                subject=header.to,
            )
            if as_json:
                print_json(
                    {
                        "letter": letter.sequence,
                        "message": header.id.hex(),
                        "re": (header.re or b"").hex(),
                        "subject": header.to,
                        "user": handle.task.context.sub if handle.task.context is not None else "",
                        "handle": handle.text,
                    }
                )
            else:
                whom = f"for {handle.task.context.sub}" if handle.task.context is not None else "for no user"
                note(printable(f"#{letter.sequence}: sent again as {header.id.hex()} to {header.to}, {whom}"))
            if wait is not None:
                await finish(handle, wait, as_json=as_json)
            elif not as_json:
                click.echo(handle.text)


async def _drop(names: tuple[int | bytes, ...], config: str | None, as_name: str, *, as_json: bool) -> None:
    from sealbus.bus.inspection import dead
    from sealbus.bus.nats.transport import NatsTransport
    from sealbus.bus.sending.outbox import Outbox

    async with _opened(config, as_name) as desk:
        letters = [await desk.find(name) for name in names]
        token = desk.settings.names.token(desk.identity.spiffe_id)
        async with Outbox(identity=desk.identity, transport=NatsTransport(desk.connection)) as outbox:
            for letter in letters:
                posted = await dead.drop(letter, outbox, desk.connection.jetstream, token)
                event = posted.sealed.header
                if as_json:
                    print_json({"letter": letter.sequence, "event": event.id.hex(), "subject": event.to})
                else:
                    click.echo(f"#{letter.sequence} is dropped; {event.to} {event.id.hex()} says so")


def as_document(letter: DeadLetter) -> dict[str, object]:
    """Return one dead letter as the JSON object that `--json` prints, without its body."""
    header, death = letter.header, letter.death
    document: dict[str, object] = {
        "letter": letter.sequence,
        "subject": letter.subject,
        "stored": shown_time(letter.stored),
        "verified": not letter.refused,
        "refused": letter.refused,
        "code": death.code if death is not None else "",
        "detail": death.detail if death is not None else "",
        "deliveries": death.deliveries if death is not None else 0,
    }
    if header is not None:
        document |= {
            "kind": str(header.kind),
            "message": header.id.hex(),
            "hash": header.digest.hex(),
            "to": header.to,
            "from": str(header.iss),
            "user": letter.user,
            "made": shown_time(header.iat),
            "until": shown_time(header.exp),
            "type": header.typ,
            "re": header.re.hex() if header.re is not None else "",
        }
    if letter.message is not None:
        document["chain"] = [{"from": str(one.iss), "to": one.to} for one in letter.message.chain]
    return document


def as_line(letter: DeadLetter) -> str:
    """Return one dead letter as one line for people."""
    header, death = letter.header, letter.death
    said = [death.code] if death is not None else ["reason unknown"]
    if letter.refused:
        said.append(f"UNVERIFIED: {letter.refused}")
    head = f"#{letter.sequence:<5} {shown_time(letter.stored)}"
    if header is None:
        return f"{head} {letter.subject}: no message  {'  '.join(said)}"
    return (
        f"{head} {header.id.hex()} {header.to:<28} from {header.iss.path:<20} for {letter.user or '-':<10} "
        f"{'  '.join(said)}"
    )


def shown(letter: DeadLetter) -> list[str]:
    """Return one dead letter as lines for people."""
    lines = [as_line(letter)]
    if letter.header is None or letter.envelope is None:
        return [*lines, f"  {len(letter.payload)} bytes"]
    header, death, body = letter.header, letter.death, letter.envelope.body
    lines.append(f"  hash {header.digest.hex()}, made {shown_time(header.iat)}, valid until {shown_time(header.exp)}")
    if letter.message is not None:
        lines += [f"  {shown_time(one.iat)} {one.iss} -> {one.to}" for one in letter.message.chain]
    if death is not None:
        lines.append(f"  {death.code} after {death.deliveries} deliveries: {death.detail}")
    more = f", the first {_BODY} of" if len(body) > _BODY else ","
    lines.append(f"  body of type {header.typ}{more} {len(body)} bytes:")
    return [*lines, f"  {body[:_BODY].decode(errors='replace')}"]
