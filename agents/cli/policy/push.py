"""`sealbus policy push|rollback`: put a part of the policy into the store that every process follows."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from sealbus.agents.cli.options import EXISTING, Invocation, invocation_options, opa_option
from sealbus.agents.cli.output import note, print_json
from sealbus.agents.cli.policy.key_option import key_option, read_key

if TYPE_CHECKING:
    from sealbus.agents.runtime.policy.push import Pushed
    from sealbus.agents.runtime.policy.store import PolicyStore
    from sealbus.envelopes.trust.keys import PublicKey
    from sealbus.policies.bundle.format import Bundle


reason_option = click.option(
    "--reason", default="", help="Recorded with the change; of a denial, also shown in the list."
)


@click.command("push")
@click.argument("source", type=EXISTING, metavar="FOLDER|FILE")
@click.option("--name", default="platform", show_default=True, help="platform, or the name of a team.")
@key_option(required=False)
@opa_option
@click.option("--revision", default="", help="By default that of .manifest, or one made from the contents.")
@reason_option
@invocation_options("operator")
async def push(
    source: Path, name: str, key_file: Path | None, opa: Path | None, revision: str, reason: str, invocation: Invocation,
) -> None:  # fmt: skip
    """Push a policy folder or a bundle signed with --key under the next serial; without --key, push a signed bundle."""
    from sealbus.agents.runtime.policy import push as policy_push

    signed = _signed_bundle(source) if key_file is None else None
    async with open_store(invocation, Act("push", reason=reason)) as (store, anchors):
        for change in await store.create():
            note(f"the bucket is not as the settings declare it: {change}; run `sealbus streams apply`")
        if signed is not None:
            pushed = await policy_push.push_signed(store, anchors, name, signed, _check(opa))
        else:
            content = policy_push.content_of(source, revision=revision)
            pushed = await policy_push.push_content(store, anchors, name, content, read_key(key_file), _check(opa))
    print_pushed(pushed, as_json=invocation.as_json)


@click.command("rollback")
@click.argument("name")
@click.option("--to", "serial", type=click.IntRange(1), required=True, help="A serial from `sealbus policy status`.")
@key_option()
@opa_option
@reason_option
@invocation_options("operator")
async def rollback(
    name: str, serial: int, key_file: Path, opa: Path | None, reason: str, invocation: Invocation,
) -> None:  # fmt: skip
    """Push the part NAME as it was under an older serial again, under a new serial."""
    from sealbus.agents.runtime.policy.push import roll_back

    async with open_store(invocation, Act("rollback", reason=reason)) as (store, anchors):
        pushed = await roll_back(store, anchors, name, serial, read_key(key_file), _check(opa))
    print_pushed(pushed, as_json=invocation.as_json)


def _signed_bundle(source: Path) -> bytes:
    if source.is_dir():
        raise click.UsageError("a folder must be signed: give --key FILE")
    return source.read_bytes()


def _check(program: Path | None) -> Callable[[Bundle], None] | None:
    from sealbus.policies.opa.compiler import find_opa, opa_check

    opa = find_opa(program)
    if opa is None:
        note("opa was not found: the checks of its own compiler were left out")
        return None
    return partial(opa_check, opa=opa)


class Act(NamedTuple):
    """The change that a command makes in the store, as `ChangeRecord` has it."""

    action: str
    target: str = ""
    reason: str = ""


@asynccontextmanager
async def open_store(
    invocation: Invocation, act: Act | None = None
) -> AsyncGenerator[tuple[PolicyStore, Mapping[str, PublicKey]], None]:
    """Open the store that the settings name, with the keys that sign the platform's part; `act` is recorded first."""
    from sealbus.agents.runtime.open import open_connection
    from sealbus.agents.runtime.policy.change_record import ChangeRecorder
    from sealbus.agents.runtime.policy.source import anchors_of
    from sealbus.agents.runtime.policy.store import PolicyStore
    from sealbus.bus.nats.transport import NatsTransport
    from sealbus.bus.sending.outbox import Outbox
    from sealbus.envelopes.errors import ConfigurationError
    from sealbus.envelopes.message.subjects import audit_subject

    settings = invocation.settings()
    policy = settings.policy
    if policy.bucket is None or not policy.keys:
        raise ConfigurationError('there is no policy store: set policy.bundle = "nats://policies" and policy.keys')
    anchors = anchors_of(policy)
    async with (
        open_connection(invocation.as_name, settings) as (identity, connection),
        Outbox(identity=identity, transport=(transport := NatsTransport(connection))) as outbox,
    ):
        recorder = (
            ChangeRecorder(
                outbox=outbox,
                transport=transport,
                subject=audit_subject(settings.names.token(identity.spiffe_id)),
                action=act.action,
                target=act.target,
                reason=act.reason,
                must=act.action != "deny",
                warn=note,
            )
            if act is not None
            else None
        )
        yield PolicyStore(connection, policy.bucket, replicas=settings.streams.replicas, before=recorder), anchors


def print_pushed(pushed: Pushed, *, as_json: bool) -> None:
    """Print the serial of the push, and the policy in the store."""
    if as_json:
        print_json(
            {
                "name": pushed.name,
                "serial": pushed.serial,
                "composed": pushed.composed,
                "fallen": dict(pushed.fallen),
            }
        )
        return
    policy = f": policy {pushed.composed}" if pushed.composed else ""
    note(f"{pushed.name} is pushed under serial {pushed.serial}{policy}")
    for team, why in pushed.fallen.items():
        note(f"{team} was left out; its agents are denied until it is pushed again: {why}")
