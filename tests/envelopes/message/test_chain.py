"""Steps 11 and 12 by themselves: links, what is remembered of them, and what is asked again (SPEC.md section 7)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.acceptance import EDGE, EDGE_ID, INVENTORY, ISSUER, PLANNER, TRUST, Delivery, Message, refuses, root_task
from support.envelopes import HOUR, MINUTE, NOW, agent, message_id

from sealbus.envelopes.errors import Code
from sealbus.envelopes.lifetimes import DEFAULT_LIFETIMES, Lifetimes
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.chain import check_grants, covers, parsed_ancestor, verify_chain
from sealbus.envelopes.message.header import Header, parse_header
from sealbus.envelopes.message.user_context import UserContext, parse_payload
from sealbus.envelopes.message.wire import Ancestor
from sealbus.envelopes.trust.bundles import Trust
from sealbus.envelopes.trust.caches import Caches
from sealbus.envelopes.trust.merkle import leaf_hash
from sealbus.envelopes.trust.proof import Credential
from sealbus.envelopes.trust.signature import MESSAGE_TYPE, sign_batch
from sealbus.envelopes.trust.spiffe_id import SpiffeId

ROOT: dict[str, object] = {"aud": agent("planner").value, "to": "task.planner.plan", "id": message_id(1)}


def verify(
    message: Message,
    *,
    ancestors: tuple[Ancestor, ...] | None = None,
    context: UserContext | None = None,
    reference: int = NOW,
    lifetimes: Lifetimes = DEFAULT_LIFETIMES,
    trust: Trust = TRUST,
    caches: Caches | None = None,
    step: int = 11,
) -> tuple[Header, ...]:
    """Verify the chain of `message`, with its own context, unless said otherwise."""
    own = parse_payload(message.context.payload) if message.context is not None else None
    return verify_chain(
        parse_header(message.raw()),
        message.ancestors if ancestors is None else ancestors,
        context if context is not None else own,
        reference=reference,
        lifetimes=lifetimes,
        trust=trust,
        caches=caches if caches is not None else Caches(),
        step=step,
    )


def root(**entries: object) -> Ancestor:
    """Return the edge's task for the planner, with entries changed."""
    return Message(sealer=EDGE, fields={**ROOT, **entries}, ancestors=()).ancestor()


def test_the_headers_come_parent_first() -> None:
    hop = ISSUER.sealer(agent("hop"))
    first = Message(sealer=EDGE, fields={**ROOT, "aud": hop.iss.value, "to": "task.hop.x"}, ancestors=()).ancestor()
    second = Message(sealer=hop, fields={**ROOT, "id": message_id(3)}, ancestors=(first,)).ancestor()
    assert [link.iss for link in verify(Message(ancestors=(second, first)))] == [hop.iss, EDGE_ID]
    assert verify(Message(sealer=EDGE, ancestors=())) == ()


@pytest.mark.parametrize("step", [11, 5])
def test_refusals_have_their_codes_and_the_callers_step(step: int) -> None:
    good = root()
    message = Message(ancestors=(good,))
    context = parse_payload(message.context.payload) if message.context is not None else None
    assert context is not None
    elsewhere = sign_batch([leaf_hash(good.header)], MESSAGE_TYPE, PLANNER.key)[0]
    event = {"t": "event", "to": "event.x.y", "end": None, "ctx": None}
    bad = [
        Message(ancestors=(root(aud=INVENTORY.value),)),
        Message(ancestors=(root(iat=NOW + 5 * SECOND + 1, exp=NOW + 2 * HOUR, end=NOW + 2 * HOUR),)),
        Message(ancestors=(root(exp=NOW + MINUTE, end=NOW + MINUTE),)),
        Message(ancestors=(root(ctx=bytes(32)),)),
        Message(ancestors=(root(**event),)),
        Message(sealer=PLANNER, ancestors=()),
        Message(fields={"par": bytes(32)}, context=None, ancestors=()),
        Message(fields={"par": None}),
    ]
    for broken in bad:
        refuses(Code.BAD_CHAIN, step, lambda broken=broken: verify(broken, step=step))  # type: ignore[misc]
    refuses(Code.BAD_CHAIN, step, lambda: verify(message, ancestors=(root(idm="x"),), step=step))
    refuses(Code.BAD_CHAIN, step, lambda: verify(message, reference=NOW + HOUR, step=step))
    refuses(Code.CHAIN_TOO_LONG, step, lambda: verify(message, ancestors=(good,) * 9, step=step))
    refuses(Code.MALFORMED, step, lambda: verify(Message(ancestors=(root(typ=1),)), step=step))
    refuses(Code.BAD_SIGNATURE, step, lambda: verify(message, ancestors=(good._replace(proof=elsewhere),), step=step))
    moved = good._replace(credential=Credential(1, b"x"))
    refuses(Code.BAD_CREDENTIAL, step, lambda: verify(message, ancestors=(moved,), step=step))
    for changed in (
        replace(context, wkl=INVENTORY),
        replace(context, iat=NOW + 5 * SECOND + 1),
        replace(context, exp=NOW),
        replace(context, end=NOW + HOUR - 1),
    ):
        refuses(Code.BAD_CHAIN, step, lambda changed=changed: verify(message, context=changed, step=step))  # type: ignore[misc]


def test_who_is_named_by_two_objects_is_one() -> None:
    message = Message(ancestors=(root(),))
    header, [ancestor] = parse_header(message.raw()), message.ancestors
    apart = header._replace(iss=SpiffeId(header.iss.value))
    assert apart.iss is not parse_header(ancestor.header).aud
    context = parse_payload(message.context.payload) if message.context is not None else None
    checked = {"reference": NOW, "lifetimes": DEFAULT_LIFETIMES, "trust": TRUST, "step": 11}
    assert len(verify_chain(apart, (ancestor,), context, caches=Caches(), **checked)) == 1  # type: ignore[arg-type]


def test_an_ancestor_is_judged_at_its_own_iat() -> None:
    brief = replace(EDGE, credential=Credential(1, ISSUER.token(EDGE_ID, EDGE.key.public, exp=NOW + SECOND)))
    parent = Message(sealer=brief, fields=ROOT, ancestors=()).ancestor()
    later = {"iat": NOW + 10 * MINUTE, "exp": NOW + HOUR, "end": NOW + HOUR}
    assert len(verify(Message(fields=later, ancestors=(parent,)), reference=NOW + 20 * MINUTE)) == 1


def test_an_event_has_no_end_to_have_passed() -> None:
    event = {"t": "event", "to": "event.planner.x", "end": None, "aud": None}
    assert verify(Message(fields=event, context=None, ancestors=()), reference=NOW + 48 * HOUR) == ()


def test_what_is_remembered_is_parsed_and_proved_once() -> None:
    caches, message = Caches(), Message(ancestors=(root(),))
    [first] = verify(message, caches=caches)
    [again] = verify(message, caches=caches)
    assert again is first
    [ancestor] = message.ancestors
    assert parsed_ancestor(ancestor.header, first.digest, caches) is first
    other = root(idm="x").header
    assert parsed_ancestor(other, first.digest, caches).raw == other
    assert len(caches.links) == 1


def test_what_is_remembered_is_judged_anew_by_all_but_form_and_proof() -> None:
    caches, good = Caches(), root()
    message = Message(ancestors=(good,))
    verify(message, caches=caches)
    elsewhere = sign_batch([leaf_hash(good.header)], MESSAGE_TYPE, PLANNER.key)[0]
    revoked = replace(TRUST, revoked_before={EDGE_ID: NOW})
    refuses(Code.REVOKED, 11, lambda: verify(message, caches=caches, trust=revoked))
    refuses(Code.BAD_CHAIN, 11, lambda: verify(message, caches=caches, reference=NOW + HOUR))
    refuses(Code.BAD_CHAIN, 11, lambda: verify(Message(sealer=EDGE, ancestors=(good,)), caches=caches))
    refuses(Code.BAD_CHAIN, 11, lambda: verify(message, ancestors=(root(idm="x"),), caches=caches))
    refuses(Code.BAD_SIGNATURE, 11, lambda: verify(message, ancestors=(good._replace(proof=elsewhere),), caches=caches))
    moved = good._replace(credential=Credential(1, b"x"))
    refuses(Code.BAD_CREDENTIAL, 11, lambda: verify(message, ancestors=(moved,), caches=caches))


def test_another_proof_of_the_same_header_is_verified_and_then_remembered() -> None:
    caches, good = Caches(), root()
    message = Message(ancestors=(good,))
    [first] = verify(message, caches=caches)
    in_batch = sign_batch([leaf_hash(good.header), bytes(32)], MESSAGE_TYPE, EDGE.key)[0]
    [again] = verify(message, ancestors=(good._replace(proof=in_batch),), caches=caches)
    assert again is first
    caches.links.put(first.digest, "not a link")
    assert verify(message, caches=caches) == (first,)


def test_nothing_is_remembered_of_a_chain_that_fails() -> None:
    caches = Caches()
    refuses(Code.BAD_CHAIN, 11, lambda: verify(Message(ancestors=(root(aud=INVENTORY.value),)), caches=caches))
    assert (len(caches.links), len(caches.credentials)) == (0, 0)


def test_grants_cover_actions_and_prefixes() -> None:
    assert covers(("a.b",), "a.b")
    assert covers(("x", "a.*"), "a.b")
    assert covers(("a.*",), "a.b.c")
    assert covers(("a.b.*",), "a.b.c")
    for grants, action in [
        ((), "a.b"),
        (("a.*",), "a"),
        (("a.*",), "ab.c"),
        (("a",), "a.b"),
        (("a.b",), "a.bc"),
        (("a.b.*",), "a.b"),
        (("a.b",), "a"),
    ]:
        assert not covers(grants, action)


def test_every_ancestor_must_cover_the_action() -> None:
    bare, limited, none = (parse_header(root(grt=grt).header) for grt in (None, ["inventory.*"], []))
    check_grants([], "inventory.update")
    check_grants([bare, limited, bare], "inventory.update")
    refuses(Code.GRANT_EXCEEDED, 12, lambda: check_grants([bare, limited], "pricing.quote"))
    refuses(Code.GRANT_EXCEEDED, 12, lambda: check_grants([limited, none], "inventory.update"))
    refuses(Code.GRANT_EXCEEDED, 3, lambda: check_grants([none], "inventory.update", step=3))


def test_the_root_of_the_makers_is_a_root() -> None:
    assert Delivery().accept(Message()).ancestors[1] == root_task().ancestor
