"""The live profile as a whole: what comes out, what is remembered, and that order matters (SPEC.md section 7)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.acceptance import (
    BODY,
    EDGE,
    EDGE_ID,
    INVENTORY,
    ISSUER,
    PLANNER,
    PROFILE,
    TRUST,
    Delivery,
    Message,
    header_block,
    refuses,
    root_task,
    statement,
)
from support.envelopes import HOUR, MINUTE, NAMES, NOW, agent, message_id

from sealbus.envelopes.accept.live import LiveProfile, credential_issued
from sealbus.envelopes.errors import Code, ConfigurationError, EnvelopeError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.freshness import CoreArrival, StreamArrival
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.seal import Draft, seal
from sealbus.envelopes.trust.bundles import Trust, TrustBundles
from sealbus.envelopes.trust.caches import Caches, ReplayMemory
from sealbus.envelopes.trust.proof import Credential
from sealbus.envelopes.trust.spiffe_id import SpiffeId

WIRE = Message().payload()
CALL: dict[str, object] = {
    "t": "call",
    "to": "call.inventory.update",
    "rpl": "_INBOX.planner.1",
    "exp": NOW + MINUTE,
    "end": NOW + MINUTE,
}


def test_who_is_named_by_two_objects_is_one() -> None:
    own = SpiffeId(INVENTORY.value)
    accepted = Delivery(profile=replace(PROFILE, own=own)).accept(Message())
    assert accepted.header.aud == own
    assert accepted.header.aud is not own


def test_a_task_comes_out_with_all_that_was_proved() -> None:
    accepted = Delivery().accept(Message())
    assert (accepted.header.iss, accepted.header.aud, accepted.body) == (PLANNER.iss, INVENTORY, BODY)
    assert accepted.credential == PLANNER.credential
    assert accepted.context is not None
    assert (accepted.context.sub, accepted.statement) == ("u-1001", statement())
    assert [link.iss for link in accepted.chain] == [EDGE_ID, PLANNER.iss]
    assert accepted.chain[-1] is accepted.header
    assert [ancestor.header for ancestor in accepted.ancestors] == [accepted.header.raw, root_task().ancestor.header]
    assert accepted.ancestors[0].proof is accepted.proof
    assert isinstance(accepted.arrival, StreamArrival)
    assert (accepted.arrival.sequence, accepted.arrival.stored) == (7, NOW + SECOND)
    assert BODY.decode() not in repr(accepted)


def test_a_call_comes_out_with_how_it_arrived() -> None:
    accepted = Delivery(core=True, subject="call.inventory.update").accept(Message(fields=CALL))
    assert isinstance(accepted.arrival, CoreArrival)
    assert accepted.header.rpl == "_INBOX.planner.1"


def test_the_credential_of_an_accepted_message_tells_when_it_was_issued() -> None:
    """A stream's message at its stored time, which is after the credential's beginning here; a call at its `iat`."""
    caches = Caches()
    later = ISSUER.sealer(PLANNER.iss, iat=NOW + 30 * SECOND, exp=NOW + 10 * MINUTE)
    fields: dict[str, object] = {"exp": NOW + HOUR, "end": NOW + HOUR}
    task = Delivery(stored=NOW + MINUTE, now=NOW + 30 * MINUTE).accept(Message(sealer=later, fields=fields))
    assert credential_issued(task, trust=TRUST, caches=caches) == NOW + 30 * SECOND
    assert isinstance(task.arrival, StreamArrival)
    early = task._replace(arrival=task.arrival._replace(stored=NOW + 24 * SECOND))
    refuses(Code.BAD_CREDENTIAL, 7, lambda: credential_issued(early, trust=TRUST, caches=caches))

    call = Delivery(core=True, subject="call.inventory.update").accept(Message(fields=CALL))
    assert credential_issued(call, trust=TRUST, caches=caches) == NOW - MINUTE
    old = call._replace(header=call.header._replace(iat=NOW - 2 * MINUTE))
    refuses(Code.BAD_CREDENTIAL, 7, lambda: credential_issued(old, trust=TRUST, caches=caches))


def test_a_credential_that_was_revoked_since_is_refused() -> None:
    accepted = Delivery().accept(Message())
    revoking = replace(TRUST, revoked_before={PLANNER.iss: NOW})
    refuses(Code.REVOKED, 7, lambda: credential_issued(accepted, trust=revoking, caches=Caches()))


def test_what_was_accepted_is_what_a_child_carries() -> None:
    parent = Delivery().accept(Message())
    [child] = seal(
        [
            Draft(
                kind=Kind.TASK,
                id=message_id(3),
                to="task.pricing.quote",
                aud=agent("pricing"),
                iat=NOW,
                exp=NOW + MINUTE,
                end=NOW + MINUTE,
                body=b"{}",
                typ="application/json",
                context=parent.statement,
                ancestors=parent.ancestors,
            )
        ],
        ISSUER.sealer(INVENTORY),
    )
    delivery = Delivery(
        subject="task.pricing.quote",
        header_block=header_block(message_id(3)),
        profile=replace(PROFILE, own=agent("pricing")),
        action="pricing.quote",
    )
    assert [link.iss for link in delivery.accept(child.wire).chain] == [EDGE_ID, PLANNER.iss, INVENTORY]


@pytest.mark.parametrize("kind", [Kind.REPLY, Kind.CHUNK, Kind.STATUS, Kind.RECORD])
def test_a_profile_takes_live_kinds_only(kind: Kind) -> None:
    for kinds in (frozenset({kind}), frozenset({kind, Kind.TASK}), frozenset[Kind]()):
        with pytest.raises(ConfigurationError):
            LiveProfile(own=INVENTORY, names=NAMES, kinds=kinds)


def test_a_kind_that_is_not_handled_or_does_not_travel_this_way() -> None:
    refuses(Code.WRONG_KIND, 3, lambda: Delivery(kinds=frozenset({Kind.EVENT})).accept(Message()))
    refuses(Code.WRONG_KIND, 3, lambda: Delivery(core=True).accept(Message()))
    refuses(Code.WRONG_KIND, 3, lambda: Delivery(subject="call.inventory.update").accept(Message(fields=CALL)))


def test_nobody_may_mint_unless_it_is_said() -> None:
    profile = LiveProfile(own=INVENTORY, names=NAMES, kinds=PROFILE.kinds)
    refuses(Code.CONTEXT_ISSUER_REFUSED, 10, lambda: Delivery(profile=profile).accept(Message()))


def test_each_step_comes_before_the_next() -> None:
    """A message that is wrong at every step is refused at the first; mended there, at the next, and so on."""
    nobody = Trust(bundles=TrustBundles())
    full = ReplayMemory(1)
    full.remember((EDGE_ID, bytes(16)), NOW + MINUTE, now=NOW)
    message = Message(
        fields={**CALL, "aud": agent("other").value, "to": "call.other.update", "ctx": bytes(32), "par": bytes(32)},
        elements={2: b"x", 3: [1, 0, [], bytes(64)]},
        credential=Credential(2, PLANNER.credential.token),
        context=None,
        ancestors=(),
    )
    here = Delivery(core=True, subject="call.x.y", now=NOW - MINUTE, replay=full, trust=nobody, action="x.y")
    refuses(Code.MALFORMED, 1, lambda: here.accept(replace(message, header=b"x", elements={5: 1, **message.elements})))
    refuses(Code.MALFORMED, 2, lambda: here.accept(replace(message, header=b"x")))
    refuses(Code.WRONG_SUBJECT, 3, lambda: here.accept(message))
    here = replace(here, subject="call.other.update")
    refuses(Code.WRONG_AUDIENCE, 4, lambda: here.accept(message))
    here = replace(here, subject="call.inventory.update")
    message = replace(message, fields={**message.fields, "aud": INVENTORY.value, "to": "call.inventory.update"})
    refuses(Code.NOT_YET_VALID, 5, lambda: here.accept(message))
    here = replace(here, now=NOW)
    refuses(Code.OVERLOADED, 6, lambda: here.accept(message))
    here = replace(here, replay=ReplayMemory(1))
    refuses(Code.BAD_CREDENTIAL, 7, lambda: here.accept(message))
    message = replace(message, credential=None)
    here = replace(here, trust=Delivery().trust)
    refuses(Code.BAD_SIGNATURE, 8, lambda: here.accept(message))
    message = replace(message, elements={2: b"x"})
    refuses(Code.BAD_DIGEST, 9, lambda: here.accept(message))
    message = replace(message, elements={})
    refuses(Code.BAD_CONTEXT, 10, lambda: here.accept(message))
    message = replace(message, context=statement(), fields={**message.fields, "ctx": Message().entries()["ctx"]})
    refuses(Code.BAD_CHAIN, 11, lambda: here.accept(message))
    limited = Message(
        sealer=EDGE, fields={"aud": PLANNER.iss.value, "to": "task.planner.x", "grt": []}, ancestors=()
    ).ancestor()
    message = replace(message, ancestors=(limited,), fields={**CALL})
    refuses(Code.GRANT_EXCEEDED, 12, lambda: here.accept(message))
    assert len(here.replay) == 0
    here.accept(replace(message, ancestors=(root_task().ancestor,)))
    assert len(here.replay) == 1


def test_a_refused_message_leaves_no_trace_of_acceptance() -> None:
    caches = Caches()
    refuses(Code.BAD_CREDENTIAL, 7, lambda: Delivery(caches=caches).accept(Message(credential=Credential(1, b"a.b.c"))))
    assert (len(caches.roots), len(caches.credentials), len(caches.contexts), len(caches.links)) == (0, 0, 0, 0)


def test_warm_and_cold_memories_give_the_same_answers() -> None:
    warm = Delivery()
    first, second = warm.accept(WIRE), warm.accept(WIRE)
    assert first == second == Delivery().accept(WIRE)


@given(st.integers(0, len(WIRE) * 8 - 1))
@settings(max_examples=300)
def test_any_flipped_bit_is_an_envelope_error(bit: int) -> None:
    flipped = bytearray(WIRE)
    flipped[bit // 8] ^= 1 << (bit % 8)
    warm = Delivery()
    warm.accept(WIRE)
    for delivery in (Delivery(), warm):
        with pytest.raises(EnvelopeError) as caught:
            delivery.accept(bytes(flipped))
        assert 1 <= caught.value.step <= 13


@given(st.binary(max_size=64) | st.binary(max_size=64).map(lambda tail: WIRE[:40] + tail))
def test_any_bytes_are_an_envelope_error(data: bytes) -> None:
    with pytest.raises(EnvelopeError):
        Delivery().accept(data)
