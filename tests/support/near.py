"""What is nearly right: IDs of another trust domain, longer, shorter or of another case, a hash with another last byte."""

from __future__ import annotations

from dataclasses import replace

from support.acceptance import EDGE, ISSUER, Message
from support.envelopes import agent, message_id

from sealbus.envelopes.message.seal import Sealer
from sealbus.envelopes.message.wire import Ancestor
from sealbus.envelopes.trust.proof import Proof
from sealbus.envelopes.trust.spiffe_id import SpiffeId

__all__ = ["DOMAINS", "LINKS", "chain", "near", "nearly", "shown"]

DOMAINS = ("other.org", "example.organ", "example.or")
LINKS = 4


def near(spiffe_id: SpiffeId) -> list[SpiffeId]:
    """Return IDs that are nearly this one."""
    value, path = spiffe_id.value, spiffe_id.value.removeprefix("spiffe://example.org")
    head, _, last = value.rpartition("/")
    return [
        SpiffeId(one)
        for one in (
            *(f"spiffe://{domain}{path}" for domain in DOMAINS),
            f"{value}x",
            f"{value}/x",
            value[:-1],
            f"{head}/{last.upper()}",
            f"{head}/{last.capitalize()}",
        )
    ]


def nearly(data: bytes) -> bytes:
    """Return bytes that differ in the last one."""
    return data[:-1] + bytes([data[-1] ^ 1])


def shown(spiffe_id: SpiffeId) -> str:
    """Return an ID as the name of a test's case."""
    return spiffe_id.value.removeprefix("spiffe://")


def chain(place: int, bent: Sealer | None = None, proof: Proof | None = None) -> Message:
    """Return a task after `LINKS` ancestors; that at `place`, 0 is the root, has another sender's proof or credential."""
    ancestors: tuple[Ancestor, ...] = ()
    sender = EDGE
    for number in range(LINKS):
        name = f"hop-{number}"
        message = Message(
            sealer=sender,
            fields={"aud": agent(name).value, "to": f"task.{name}.x", "id": message_id(30 + number)},
            ancestors=ancestors,
        )
        ancestor = message.ancestor()
        if number == place and bent is not None:
            message = replace(message, credential=bent.credential)
            ancestor = message.ancestor()
        if number == place and proof is not None:
            ancestor = ancestor._replace(proof=proof)
        ancestors = (ancestor, *ancestors)
        sender = ISSUER.sealer(agent(name))
    return Message(sealer=sender, ancestors=ancestors)
