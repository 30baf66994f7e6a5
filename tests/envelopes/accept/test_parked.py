"""A message that was parked is verified again as of when it was stored: every byte, its place, minter and revocations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from support.acceptance import EDGE_ID, INVENTORY, ISSUER, MINTERS, PLANNER, TRUST, Message, refuses, statement
from support.envelopes import HOUR, MINUTE, NAMES, NOW, agent, message_id
from support.near import near, nearly, shown

from sealbus.envelopes.accept.live import VerifiedMessage
from sealbus.envelopes.accept.parked import accept_parked
from sealbus.envelopes.accept.result import ResultProfile
from sealbus.envelopes.errors import Code, EnvelopeError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.freshness import StreamArrival
from sealbus.envelopes.message.header import parse_header
from sealbus.envelopes.message.subjects import own_subjects
from sealbus.envelopes.trust.bundles import Trust, TrustBundles
from sealbus.envelopes.trust.caches import Caches
from sealbus.envelopes.trust.spiffe_id import SpiffeId

PROFILE = ResultProfile(own=INVENTORY, names=NAMES)
STORED = NOW + SECOND


def accepted(message: Message | bytes, digest: bytes | None = None, **changes: Any) -> VerifiedMessage:
    payload = message if isinstance(message, bytes) else message.payload()
    named = digest if digest is not None else parse_header((Message() if isinstance(message, bytes) else message).raw())
    arrival = StreamArrival(
        subject=changes.pop("subject", "task.inventory.update"),
        header_block=b"",
        stream="TASKS",
        sequence=7,
        stored=changes.pop("stored", STORED),
        created=0,
        delivery=3,
    )
    given: Mapping[str, Any] = {
        "own_subjects": own_subjects(),
        "minters": MINTERS,
        "trust": TRUST,
        "caches": Caches(),
        **changes,
    }
    return accept_parked(payload, named if isinstance(named, bytes) else named.digest, arrival, PROFILE, **given)


def test_it_is_what_it_was() -> None:
    message = Message()
    found = accepted(message)
    assert found.header.raw == message.raw()
    assert found.body == message.body
    assert found.context is not None
    assert found.context.sub == "u-1001"
    assert [one.iss for one in found.chain] == [EDGE_ID, PLANNER.iss]
    assert found.arrival.subject == "task.inventory.update"
    assert len(found.ancestors) == 2


def test_every_byte_of_it_counts() -> None:
    """Whatever byte is another, it is refused: with one of the codes of acceptance, or as another message."""
    message = Message()
    payload, digest = message.payload(), parse_header(message.raw()).digest
    assert accepted(payload, digest)
    for place in range(len(payload)):
        for flip in (1, 0x80):
            bent = bytearray(payload)
            bent[place] ^= flip
            with pytest.raises(EnvelopeError):
                accepted(bytes(bent), digest)


def test_a_shorter_or_a_longer_one_is_refused() -> None:
    payload, digest = Message().payload(), parse_header(Message().raw()).digest
    for bent in (payload[:-1], payload + b"\x00", b"", payload[1:]):
        with pytest.raises(EnvelopeError):
            accepted(bent, digest)


def test_another_message_than_was_parked_is_refused() -> None:
    other = Message(fields={"id": message_id(3)})
    refuses(Code.BAD_DIGEST, 2, lambda: accepted(other, parse_header(Message().raw()).digest))
    refuses(Code.BAD_DIGEST, 2, lambda: accepted(Message(), nearly(parse_header(Message().raw()).digest)))


def test_only_a_task_is_parked() -> None:
    inbox = f"_INBOX.{NAMES.token(PLANNER.iss)}.1"
    fields = {"t": "call", "to": "call.inventory.update", "rpl": inbox, "exp": NOW + MINUTE, "end": NOW + MINUTE}
    message = Message(fields=fields)
    digest = parse_header(message.raw()).digest
    refuses(Code.WRONG_KIND, 3, lambda: accepted(message, digest, subject="call.inventory.update"))


@pytest.mark.parametrize("subject", ["task.inventory.updat", "task.inventory.updatex", "task.planner.update", ""])
def test_it_stands_where_it_was_sent(subject: str) -> None:
    refuses(Code.WRONG_SUBJECT, 3, lambda: accepted(Message(), subject=subject))


@pytest.mark.parametrize("other", near(INVENTORY), ids=shown)
def test_its_subject_is_its_audiences(other: SpiffeId) -> None:
    refuses(Code.WRONG_SUBJECT, 3, lambda: accepted(Message(fields={"aud": other.value})))


@pytest.mark.parametrize("other", near(EDGE_ID), ids=shown)
def test_its_context_is_by_who_may_mint(other: SpiffeId) -> None:
    refuses(Code.CONTEXT_ISSUER_REFUSED, 10, lambda: accepted(Message(), minters=frozenset({other})))


def test_its_body_and_proof_are_its_own() -> None:
    refuses(Code.BAD_DIGEST, 9, lambda: accepted(Message(elements={2: b'{"item":"43"}'})))
    proof = Message(fields={"id": message_id(3)}).prf()
    refuses(Code.BAD_SIGNATURE, 8, lambda: accepted(Message(proof=proof)))
    others = ISSUER.sealer(agent("pricing")).credential
    refuses(Code.BAD_CREDENTIAL, 7, lambda: accepted(Message(credential=others)))


def test_keys_are_those_of_when_it_was_stored() -> None:
    assert accepted(Message(), stored=NOW + HOUR - 1)
    refuses(Code.CREDENTIAL_EXPIRED, 7, lambda: accepted(Message(), stored=NOW + 30 * HOUR))
    refuses(Code.UNKNOWN_TRUST_DOMAIN, 7, lambda: accepted(Message(), trust=Trust(bundles=TrustBundles([]))))


@pytest.mark.parametrize("who", [PLANNER.iss, EDGE_ID], ids=shown)
def test_who_was_revoked_since_counts_for_nothing(who: SpiffeId) -> None:
    revoked = replace(TRUST, revoked_before={who: NOW + HOUR})
    with pytest.raises(EnvelopeError) as raised:
        accepted(Message(), trust=revoked)
    assert raised.value.code is Code.REVOKED


def test_its_chain_is_whole() -> None:
    refuses(Code.BAD_CHAIN, 11, lambda: accepted(Message(ancestors=())))
    refuses(Code.BAD_CHAIN, 11, lambda: accepted(Message(fields={"end": NOW + 3 * HOUR})))
    refuses(Code.BAD_CONTEXT, 10, lambda: accepted(Message(elements={5: None})))
    assert accepted(Message(context=None, ancestors=())).context is None
    assert statement().payload


def test_its_own_end_may_be_over_but_was_not_when_it_was_stored() -> None:
    short = Message(fields={"end": NOW + 10 * SECOND, "exp": NOW + 10 * SECOND})
    assert accepted(short, stored=NOW + 9 * SECOND)
    refuses(Code.BAD_CHAIN, 11, lambda: accepted(short, stored=NOW + 11 * SECOND))
