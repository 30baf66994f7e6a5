"""Sealing: what comes out, and what is not let out (SPEC.md sections 2 to 4)."""

from __future__ import annotations

from hashlib import sha256
from typing import cast

import pytest
from support.envelopes import (
    HOUR,
    NOW,
    Issuer,
    agent,
    call_draft,
    event_draft,
    message_id,
    record_draft,
    reply_draft,
    signing_key,
    status_draft,
    task_draft,
)

from sealbus.envelopes.errors import SealError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.header import Header, parse_header
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.seal import Draft, Sealed, Sealer, seal
from sealbus.envelopes.message.wire import Ancestor, Statement, parse_envelope
from sealbus.envelopes.trust.caches import VerifiedRoots
from sealbus.envelopes.trust.merkle import leaf_hash
from sealbus.envelopes.trust.proof import Credential
from sealbus.envelopes.trust.signature import CONTEXT_TYPE, MESSAGE_TYPE, sign_batch, verify_proof

SEALER = Issuer().sealer(agent("planner"))


def statement() -> Statement:
    payload = b"a user context"
    return Statement(payload, sign_batch([leaf_hash(payload)], CONTEXT_TYPE, SEALER.key)[0], SEALER.credential)


def opened(sealed: Sealed) -> Header:
    """Check a sealed message as a reader does in steps 1, 2, 8 and 9, and against what was returned beside it."""
    envelope = parse_envelope(sealed.wire)
    header = parse_header(envelope.header)
    verify_proof(envelope.proof, leaf_hash(envelope.header), MESSAGE_TYPE, header.key, VerifiedRoots())
    assert header == sealed.header
    assert header.crd == sha256(envelope.credential.token).digest()
    assert sealed.ancestor == Ancestor(envelope.header, envelope.proof, envelope.credential)
    return header


def test_one_draft_of_each_kind() -> None:
    for draft in (
        task_draft(),
        call_draft(),
        reply_draft(bytes(32), "_INBOX.planner.1"),
        reply_draft(bytes(32), "_INBOX.planner.1")._replace(kind=Kind.CHUNK, seq=3, fin=True),
        status_draft(bytes(32), message_id(1)),
        event_draft(),
        record_draft(b"body", bytes(32)),
    ):
        [sealed] = seal([draft], SEALER)
        header = opened(sealed)
        assert header.kind is draft.kind
        assert parse_envelope(sealed.wire).body == draft.body
        assert parse_envelope(sealed.wire).proof.size == 1


def test_every_field_of_a_draft_gets_where_it_belongs() -> None:
    context = statement()
    parent = seal([task_draft(1, aud="planner")], Issuer().sealer(agent("edge")))[0]
    draft = Draft(
        kind=Kind.TASK,
        id=message_id(2),
        to="task.inventory.update",
        iat=NOW,
        exp=NOW + 1,
        body=b"body",
        typ="text/plain",
        aud=agent("inventory"),
        end=NOW + 2,
        sch="s/1",
        context=context,
        ancestors=(parent.ancestor,),
        re=bytes(32),
        grt=("a.*", "b"),
        idm="once",
        tid=bytes(range(16)),
        ext={"z": 1, "a": "b"},
    )
    header = opened(seal([draft], SEALER)[0])
    assert header._replace(raw=b"", digest=b"") == Header(
        kind=Kind.TASK,
        id=message_id(2),
        iss=agent("planner"),
        to="task.inventory.update",
        aud=agent("inventory"),
        iat=NOW,
        exp=NOW + 1,
        end=NOW + 2,
        key=SEALER.key.public,
        crd=sha256(SEALER.credential.token).digest(),
        dig=sha256(b"body").digest(),
        typ="text/plain",
        sch="s/1",
        ctx=sha256(context.payload).digest(),
        par=parent.header.digest,
        re=bytes(32),
        rpl=None,
        seq=None,
        fin=False,
        grt=("a.*", "b"),
        idm="once",
        tid=bytes(range(16)),
        ext={"a": "b", "z": 1},
        raw=b"",
        digest=b"",
    )
    envelope = parse_envelope(seal([draft], SEALER)[0].wire)
    assert envelope.context == context
    assert envelope.ancestors == (parent.ancestor,)


def test_a_record_brings_its_own_digest() -> None:
    assert opened(seal([record_draft(b"body", b"d" * 32)], SEALER)[0]).dig == b"d" * 32
    guard = record_draft(b"body", b"d" * 32)._replace(id=b"\xff" * 16)
    assert opened(seal([guard], SEALER)[0]).id == b"\xff" * 16
    with pytest.raises(SealError, match="dig"):
        seal([record_draft(b"body", b"d" * 32)._replace(dig=None)], SEALER)
    with pytest.raises(SealError, match="dig"):
        seal([task_draft()._replace(dig=sha256(b"{}").digest())], SEALER)


@pytest.mark.parametrize("size", [2, 3, 32, 100])
def test_many_share_one_signature(size: int) -> None:
    drafts = [task_draft(number, body=bytes([number])) for number in range(size)]
    sealed = seal(drafts, SEALER)
    envelopes = [parse_envelope(one.wire) for one in sealed]
    assert len({envelope.proof.signature for envelope in envelopes}) == 1
    assert [envelope.body for envelope in envelopes] == [draft.body for draft in drafts]
    assert [opened(one).id for one in sealed] == [draft.id for draft in drafts]


def test_one_or_many_is_the_same_code() -> None:
    """A message's header, which is what it is known by, is the same however many were sealed with it."""
    drafts = [task_draft(1), call_draft(2), event_draft(3)]
    alone = [seal([draft], SEALER)[0].header for draft in drafts]
    assert [sealed.header for sealed in seal(drafts, SEALER)] == alone


def test_a_batch_of_4096() -> None:
    sealed = seal([event_draft(number) for number in range(4096)], SEALER)
    assert opened(sealed[0]).id == message_id(0)
    assert opened(sealed[4095]).id == message_id(4095)
    with pytest.raises(SealError, match="batch"):
        seal([event_draft(1)] * 4097, SEALER)
    with pytest.raises(SealError, match="batch"):
        seal([], SEALER)


CHANGES: list[dict[str, object]] = [
    {"id": bytes(16)},
    {"id": b""},
    {"to": "task.*"},
    {"to": ""},
    {"iat": NOW + HOUR},
    {"iat": -1},
    {"exp": NOW},
    {"exp": NOW + 25 * HOUR, "end": NOW + 25 * HOUR},
    {"end": NOW + 1},
    {"end": NOW + 25 * HOUR},
    {"end": None},
    {"aud": None},
    {"body": "text"},
    {"body": bytearray(b"body")},
    {"body": bytes(917_505)},
    {"typ": "\n"},
    {"typ": "\ud800"},
    {"typ": "a" * 257},
    {"typ": b"text/plain"},
    {"sch": "a" * 257},
    {"re": b"short"},
    {"rpl": "_INBOX.planner.1"},
    {"seq": 0},
    {"fin": True},
    {"grt": ("a b",)},
    {"grt": ("a",) * 33},
    {"idm": "\x7f"},
    {"tid": bytes(15)},
    {"ext": {"a": 1.5}},
    {"ext": {f"{number:02}": 1 for number in range(17)}},
    {"ext": {"a": b"a" * 8192}},
]


@pytest.mark.parametrize("changes", CHANGES, ids=lambda changes: str(changes)[:50])
def test_what_a_reader_would_refuse_is_not_sealed(changes: dict[str, object]) -> None:
    bad = task_draft()._replace(**changes)  # type: ignore[arg-type]
    with pytest.raises(SealError):
        seal([bad], SEALER)
    with pytest.raises(SealError):  # all or none
        seal([task_draft(1), bad, task_draft(2)], SEALER)


def test_bodies_up_to_their_limit() -> None:
    assert opened(seal([task_draft(body=bytes(917_504))], SEALER)[0]).kind is Kind.TASK


def test_headers_up_to_their_limit() -> None:
    [small] = seal([task_draft()._replace(ext={"a": bytes(300)})], SEALER)
    room = 8192 - len(small.header.raw) + 300
    [largest] = seal([task_draft()._replace(ext={"a": bytes(room)})], SEALER)
    assert len(largest.header.raw) == 8192
    opened(largest)
    with pytest.raises(SealError, match="header"):
        seal([task_draft()._replace(ext={"a": bytes(room + 1)})], SEALER)


def test_what_a_message_carries_is_within_its_limits() -> None:
    context = statement()
    parent = seal([task_draft()], SEALER)[0].ancestor
    seal([task_draft()._replace(ancestors=(parent,) * 8)], SEALER)
    for bad in (
        task_draft()._replace(ancestors=(parent,) * 9),
        task_draft()._replace(ancestors=(parent._replace(header=bytes(8193)),)),
        task_draft()._replace(context=context._replace(payload=bytes(8193))),
        task_draft()._replace(context=context._replace(credential=Credential(1, bytes(4097)))),
        task_draft()._replace(ancestors=cast("tuple[Ancestor, ...]", [parent])),
    ):
        with pytest.raises(SealError):
            seal([bad], SEALER)


def test_events_never_carry_a_context_or_a_chain() -> None:
    parent = seal([task_draft()], SEALER)[0].ancestor
    for draft in (event_draft(), reply_draft(bytes(32), "x"), record_draft(b"", bytes(32))):
        with pytest.raises(SealError):
            seal([draft._replace(context=statement())], SEALER)
        with pytest.raises(SealError):
            seal([draft._replace(ancestors=(parent,))], SEALER)


def test_nothing_is_sealed_once_the_credential_has_expired() -> None:
    sealer = Issuer().sealer(agent("planner"), exp=NOW + SECOND)
    seal([task_draft()._replace(iat=NOW + SECOND - 1)], sealer)
    for iat in (NOW + SECOND, NOW + SECOND + 1):
        with pytest.raises(SealError, match="credential"):
            seal([task_draft()._replace(iat=iat)], sealer)


@pytest.mark.parametrize(
    "credential", [Credential(2, b"x"), Credential(0, b"x"), Credential(1, b""), Credential(1, bytes(4097))]
)
def test_a_sealer_has_a_credential_that_readers_take(credential: Credential) -> None:
    with pytest.raises(SealError, match="credential"):
        Sealer(iss=agent("planner"), key=signing_key("planner"), credential=credential, expires=NOW)
    with pytest.raises(SealError, match="credential"):
        Sealer(iss=agent("a"), key=signing_key("a"), credential=Credential(True, b"x"), expires=NOW)


@pytest.mark.parametrize("length", [1, 4096])
def test_a_credential_has_up_to_4096_bytes(length: int) -> None:
    token = bytes(length)
    sealer = Sealer(iss=agent("a"), key=signing_key("a"), credential=Credential(1, token), expires=NOW + HOUR)
    assert opened(seal([task_draft()], sealer)[0]).crd == sha256(token).digest()


def test_nothing_secret_is_shown() -> None:
    draft = task_draft(body=b"secret body")
    [sealed] = seal([draft._replace(context=statement())], SEALER)
    for value in (draft, SEALER, sealed):
        shown = f"{value!r} {value!s}"
        assert "secret body" not in shown
        assert "a user context" not in shown
        assert SEALER.credential.token.decode() not in shown
