"""`sealbus pub SUBJECT BODY`: publish a task or an event."""

from __future__ import annotations

import asyncio
import sys

import click

from sealbus.agents.cli.options import as_option, config_option, json_option
from sealbus.agents.cli.output import note, print_json

__all__ = ["command"]


@click.command("pub")
@click.argument("subject")
@click.argument("body")
@click.option("--user", default=None, metavar="ID", help="For this user; only where `sealbus dev` can mint (its edge).")
@click.option("--session", default="", help="The user's session.")
@click.option("--life", default=3_600.0, show_default=True, type=click.FloatRange(1, 86_400), help="Seconds.")
@click.option("--partition", default=None)
@click.option(
    "--count", default=1, show_default=True, type=click.IntRange(1, 100_000), help="Publish it so many times."
)
@config_option
@as_option("shop-web")
@json_option
def command(
    subject: str,
    body: str,
    user: str | None,
    session: str,
    life: float,
    partition: str | None,
    count: int,
    config: str | None,
    as_name: str,
    as_json: bool,
) -> None:
    """Publish BODY (JSON, or - for standard input) to SUBJECT: task.<agent>.<verb>, or event.<own name>.<name>."""
    payload = sys.stdin.buffer.read() if body == "-" else body.encode()
    asyncio.run(_publish(subject, payload, user, session, life, partition, count, config, as_name, as_json=as_json))


async def _publish(
    subject: str,
    payload: bytes,
    user: str | None,
    session: str,
    life: float,
    partition: str | None,
    count: int,
    config: str | None,
    as_name: str,
    *,
    as_json: bool,
) -> None:
    from sealbus.agents.bodies import JSON
    from sealbus.agents.client import Client
    from sealbus.agents.dev.minting import minted_user
    from sealbus.agents.settings import load_settings
    from sealbus.bus.routes import Answer

    kind, _, rest = subject.partition(".")
    if kind not in ("task", "event") or rest.count(".") < 1:
        raise click.UsageError("SUBJECT is task.<agent>.<verb> or event.<own name>.<name>; `sealbus call` is for calls")
    settings = load_settings(config)
    statement = await minted_user(settings, user, as_name, session) if user is not None else None
    answer = Answer(body=payload, typ=JSON)
    async with Client(as_name, settings=settings) as bus:
        for _ in range(count):
            if kind == "task":
                receipt = await bus.submit(rest, answer, user=statement, life=life, partition=partition)
            else:
                receipt = await bus.emit(rest.split(".", 1)[1], answer)
            if as_json:
                print_json(
                    {
                        "message": receipt.message_id,
                        "subject": receipt.subject,
                        "stream": receipt.stream,
                        "sequence": receipt.sequence,
                    }
                )
            else:
                note(f"{receipt.subject}: stored as {receipt.stream} #{receipt.sequence}, message {receipt.message_id}")
