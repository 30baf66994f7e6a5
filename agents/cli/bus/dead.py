"""`sealbus dead ls|show|retry|drop`: list messages that could not be handled, send them again, or delete them."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import click

from sealbus.agents.cli.bus.task import finish, result_option
from sealbus.agents.cli.options import Invocation, agent_option, invocation_options, limit_option, workload_named
from sealbus.agents.cli.output import note, print_json, renamed
from sealbus.bus.inspection.documents import shown_time
from sealbus.envelopes.printable import printable

if TYPE_CHECKING:
    from sealbus.agents.identity import WorkloadIdentity
    from sealbus.agents.runtime.settings.settings import Settings
    from sealbus.bus.inspection.dead import DeadLetter, DeadLetterList
    from sealbus.bus.nats.connection.connection import Connection


_BODY: Final = 4_096
"""Bytes of a body that are shown to people."""

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

    LETTER is the number that `ls` shows, or the id or hash of the message. Letters are kept for 30 days; when their stream is
    full, the oldest are deleted.
    """


@command.command("ls")
@agent_option("Only letters of this agent")
@limit_option
@invocation_options("operator")
async def ls(agent: str | None, limit: int, invocation: Invocation) -> None:
    """List the newest dead letters with the reasons that their agents gave.

    A letter is the message as its agent received it. It is verified as its agent verified it, as of the time when it was
    made, and marked UNVERIFIED with a code if that fails. If its key has left the trust bundles since, the code is
    unknown_key. The reason comes from an event that the agent sealed, which is kept for 24 hours. After that, the reason is
    in the audit stream only (sealbus audit replay --message ID). Not verified: that the list is complete, and revocations.
    """
    async with _opened(invocation) as dead:
        workload = workload_named(dead.settings.names, agent)
        async with aclosing(dead.letters.listed(dead.connection.jetstream, workload, most=limit)) as listed:
            async for letter in listed:
                if invocation.as_json:
                    print_json(as_document(letter))
                else:
                    click.echo(printable(as_line(letter)))


@command.command("show")
@_letters
@invocation_options("operator")
async def show(names: tuple[int | bytes, ...], invocation: Invocation) -> int:
    """Show each LETTER with its chain, its reason and its body; exit code 4 if one does not verify."""
    doubtful = False
    async with _opened(invocation) as dead:
        for name in names:
            letter = await dead.find_letter(name)
            doubtful = doubtful or bool(letter.refused)
            if invocation.as_json:
                body = letter.envelope.body if letter.envelope is not None else letter.payload
                print_json({**as_document(letter), "body": b64encode(body).decode()})
                continue
            for line in shown(letter):
                click.echo(printable(line))
    return 4 if doubtful else 0


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
    "--unverified",
    is_flag=True,
    help="Send even a letter that cannot be verified now because its key is no longer known.",
)
@result_option
@invocation_options("operator")
async def retry(
    names: tuple[int | bytes, ...],
    send_as: str | None,
    without_user: bool,
    unverified: bool,
    wait: float | None,
    invocation: Invocation,
) -> None:
    """Send each LETTER again, as a new task under your identity. The policy decides about the new task.

    The dead message itself cannot be delivered again, and its requester knows that it failed. The new task has the same
    subject and body, names the dead message (`re`), and allows no more actions to follow from it. You get its result. The
    user's context is included only if the dead message began its chain, you sent it, and the context may still start a chain.
    Otherwise give --without-user. The letter stays.

    First check what has happened: after outcome_unknown, or without `once`, the effect may have happened already.
    """
    from sealbus.agents.runtime.client import Client
    from sealbus.agents.sdk.task_handle import TaskHandle
    from sealbus.bus.clocks import wall_clock
    from sealbus.bus.gate.status_reader import AskedTask
    from sealbus.bus.inspection.dead import sent_again
    from sealbus.envelopes.accept.open_request import PendingRequest
    from sealbus.envelopes.errors import Code
    from sealbus.envelopes.message.subjects import action_of
    from sealbus.envelopes.message.user_context import parse_payload

    sender = send_as or invocation.as_name
    async with _opened(invocation) as dead:
        letters = [await dead.find_letter(name) for name in names]
        own = dead.settings.names.id_of(sender)
        # All or none: a letter that cannot be sent again is refused before anything is sent.
        messages = [
            sent_again(letter, own, now=wall_clock(), without_user=without_user, unverified=unverified)
            for letter in letters
        ]
    for letter in letters:
        if letter.death is not None and letter.death.code == Code.OUTCOME_UNKNOWN:
            note(f"#{letter.sequence} ended as outcome_unknown: its effect may have happened already")
    async with Client(sender, settings=dead.settings) as bus:
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
            if invocation.as_json:
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
                user = f"for {handle.task.context.sub}" if handle.task.context is not None else "for no user"
                note(printable(f"#{letter.sequence}: sent again as {header.id.hex()} to {header.to}, {user}"))
            if wait is not None:
                await finish(handle, wait, as_json=invocation.as_json)
            elif not invocation.as_json:
                click.echo(handle.text)


@command.command("drop")
@_letters
@invocation_options("operator")
async def drop(names: tuple[int | bytes, ...], invocation: Invocation) -> None:
    """Delete each LETTER from DEAD for good, after an event about it is stored.

    You send the event event.<you>.dropped, with the letter's hashes. Like all events it is kept for 24 hours. If an agent
    listens to it, the agent's decision on the event stays in the audit stream. Decisions on the dead message stay there in
    any case.
    """
    from sealbus.bus.inspection.dead import drop as drop_letter
    from sealbus.bus.nats.transport import NatsTransport
    from sealbus.bus.sending.outbox import Outbox

    async with _opened(invocation) as dead:
        letters = [await dead.find_letter(name) for name in names]
        token = dead.settings.names.token(dead.identity.spiffe_id)
        async with Outbox(identity=dead.identity, transport=NatsTransport(dead.connection)) as outbox:
            for letter in letters:
                posted = await drop_letter(letter, outbox, dead.connection.jetstream, token)
                event = posted.sealed.header
                if invocation.as_json:
                    print_json({"letter": letter.sequence, "event": event.id.hex(), "subject": event.to})
                else:
                    click.echo(f"#{letter.sequence} is dropped; {event.to} {event.id.hex()} says so")


@dataclass(frozen=True, slots=True, kw_only=True)
class _DeadLetters:
    """The dead letters of a deployment, opened under the identity of the workload that reads them."""

    settings: Settings
    identity: WorkloadIdentity
    connection: Connection
    letters: DeadLetterList

    async def find_letter(self, name: int | bytes) -> DeadLetter:
        from sealbus.bus.nats.api import existing_stream
        from sealbus.bus.stream_names import DEAD

        state = await existing_stream(self.connection.jetstream, DEAD)
        return await self.letters.find_letter(name, first=state.first, last=state.last)


@asynccontextmanager
async def _opened(invocation: Invocation) -> AsyncGenerator[_DeadLetters, None]:
    from sealbus.agents.runtime.open import open_connection, reading_profile
    from sealbus.bus.inspection.dead import DeadLetterList
    from sealbus.bus.nats.transport import NatsTransport
    from sealbus.envelopes.trust.bundles import Trust

    settings = invocation.settings()
    async with open_connection(invocation.as_name, settings) as (identity, connection):
        yield _DeadLetters(
            settings=settings,
            identity=identity,
            connection=connection,
            letters=DeadLetterList(
                transport=NatsTransport(connection),
                profile=reading_profile(settings, identity.spiffe_id),
                trust=lambda: Trust(bundles=identity.bundles()),
            ),
        )


def as_document(letter: DeadLetter) -> dict[str, object]:
    """Return one dead letter as the JSON object that `--json` prints, without its body."""
    document = {name: value for name, value in letter.document().items() if name != "agent"}
    return renamed(document, sequence="letter", time="stored")


def as_line(letter: DeadLetter) -> str:
    """Return one dead letter as one line for people."""
    header, death = letter.header, letter.death
    texts = [death.code] if death is not None else ["reason unknown"]
    if letter.refused:
        texts.append(f"UNVERIFIED: {letter.refused}")
    head = f"#{letter.sequence:<5} {shown_time(letter.stored)}"
    if header is None:
        return f"{head} {letter.subject}: no message  {'  '.join(texts)}"
    return (
        f"{head} {header.id.hex()} {header.to:<28} from {header.iss.path:<20} for {letter.user or '-':<10} "
        f"{'  '.join(texts)}"
    )


def shown(letter: DeadLetter) -> list[str]:
    """Return one dead letter as lines for people."""
    lines = [as_line(letter)]
    if letter.header is None or letter.envelope is None:
        return [*lines, f"  {len(letter.payload)} bytes"]
    header, death, body = letter.header, letter.death, letter.envelope.body
    lines.append(f"  hash {header.digest.hex()}, made {shown_time(header.iat)}, valid until {shown_time(header.exp)}")
    if letter.message is not None:
        lines += [f"  {shown_time(link.iat)} {link.iss} -> {link.to}" for link in letter.message.chain]
    if death is not None:
        lines.append(f"  {death.code} after {death.deliveries} deliveries: {death.detail}")
    more = f", the first {_BODY} of" if len(body) > _BODY else ","
    lines.append(f"  body of type {header.typ}{more} {len(body)} bytes:")
    return [*lines, f"  {body[:_BODY].decode(errors='replace')}"]
