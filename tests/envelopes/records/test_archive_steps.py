"""The steps of the archive profile, by number (SPEC.md section 7). Steps 4, 6 and 12 to 18 do not apply."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

import pytest
from support.acceptance import BODY, EDGE, INVENTORY, ISSUER, PLANNER, Message, refuses, root_task, statement
from support.audit import RECORDER, Archive, audit_message, decision_of, evidence_items, opened
from support.envelopes import HOUR, MINUTE, NAMES, NOW, TRUST_DOMAIN, Issuer, agent, private_key, signing_key

from sealbus.envelopes.encoding.codec import Value, encode
from sealbus.envelopes.errors import Code
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.records.archive import ArchiveProfile
from sealbus.envelopes.records.body import ancestor_item, context_item, credential_item, encode_audit_body
from sealbus.envelopes.records.decision import CorePlace, DecisionRecord, StreamPlace
from sealbus.envelopes.records.notary import CheckpointRecord
from sealbus.envelopes.trust.bundles import JwtBundle, TrustBundles
from sealbus.envelopes.trust.merkle import leaf_hash, root
from sealbus.envelopes.trust.proof import Proof

MESSAGE = opened()
DECISION = decision_of(MESSAGE)
EVIDENCE = evidence_items(MESSAGE)
ITEMS = list(EVIDENCE.values())
NOTE = CheckpointRecord(note=b"note").encode()
FORGED = Proof(1, 0, (), b"\x01" * 64)
OTHERS = TrustBundles([JwtBundle.parse(TRUST_DOMAIN, Issuer(kid="key-2", key=private_key("other")).jwks())])


def note_message(**fields: object) -> Message:
    return audit_message([], [NOTE], **fields)


def about(message: Message, **changes: object) -> DecisionRecord:
    """Return a decision on `message`, which nobody has opened."""
    return DECISION._replace(header=message.raw(), proof=message.prf(), **changes)  # type: ignore[arg-type]  # fields of their types


def stored_at(time: int) -> StreamPlace:
    """Return a place in the stream."""
    return StreamPlace(stream="TASKS", sequence=7, stored=time)


# The record message.


def test_step_01_refuses_what_is_no_envelope() -> None:
    refuses(Code.MALFORMED, 1, lambda: Archive().record(Message(elements={2: "text"})))
    refuses(Code.UNSUPPORTED_FORMAT, 1, lambda: Archive().record(Message(elements={0: 2})))


@pytest.mark.parametrize("fields", [{"aud": INVENTORY.value}, {"ctx": bytes(32)}, {"par": bytes(32)}, {"id": b"short"}])
def test_step_02_refuses_a_header_that_is_not_of_its_kind(fields: dict[str, object]) -> None:
    refuses(Code.MALFORMED, 2, lambda: Archive().record(note_message(**fields)))


def test_step_02_accepts_a_guard_id() -> None:
    assert Archive().record(note_message(id=bytes(16))).header.id == bytes(16)


def test_step_03_refuses_every_other_kind() -> None:
    refuses(Code.WRONG_KIND, 3, lambda: Archive().record(Message()))
    event = note_message(t="event", to="event.inventory.changed")
    refuses(Code.WRONG_KIND, 3, lambda: Archive(subject="event.inventory.changed").record(event))


def test_step_03_refuses_another_subject_than_it_was_stored_on() -> None:
    refuses(Code.WRONG_SUBJECT, 3, lambda: Archive(subject="audit.planner").record(note_message()))


@pytest.mark.parametrize("to", ["audit.planner", "audit.inventory.x", "audits.inventory", "audit"])
def test_step_03_refuses_the_subject_of_another(to: str) -> None:
    refuses(Code.WRONG_SUBJECT, 3, lambda: Archive(subject=to).record(note_message(to=to)))


def test_step_05_does_not_apply_to_a_record_message() -> None:
    # It counts by its entry's time, whatever it says of itself; what bounds that is its credential.
    late = note_message(iat=NOW - 2 * HOUR, exp=NOW - HOUR)
    assert Archive().record(late).header.exp == NOW - HOUR


def test_step_07_refuses_another_credential_than_was_signed() -> None:
    refuses(Code.BAD_CREDENTIAL, 7, lambda: Archive().record(note_message(crd=bytes(32))))


def test_step_07_judges_the_credential_at_the_time_of_the_entry() -> None:
    assert Archive(time=NOW + HOUR - 1).record(note_message()).time == NOW + HOUR - 1
    refuses(Code.CREDENTIAL_EXPIRED, 7, lambda: Archive(time=NOW + HOUR).record(note_message()))
    refuses(Code.BAD_CREDENTIAL, 7, lambda: Archive(time=NOW - MINUTE - 5 * SECOND - 1).record(note_message()))


def test_step_07_takes_keys_from_the_bundles_of_that_time_only() -> None:
    refuses(Code.UNKNOWN_KEY, 7, lambda: Archive(bundles=OTHERS).record(note_message()))
    refuses(Code.UNKNOWN_TRUST_DOMAIN, 7, lambda: Archive(bundles=TrustBundles()).record(note_message()))


def test_step_08_refuses_another_signature() -> None:
    refuses(Code.BAD_SIGNATURE, 8, lambda: Archive().record(replace(note_message(), proof=FORGED)))


def test_step_09_accepts_evidence_and_records_under_their_root() -> None:
    audit = Archive().record(audit_message(ITEMS, [DECISION.encode(), NOTE]))
    assert list(audit.body.records.values()) == [DECISION, CheckpointRecord(note=b"note")]
    assert audit.header.dig == root([leaf_hash(item) for item in (*ITEMS, DECISION.encode(), NOTE)])


def test_step_09_refuses_the_root_of_other_items_and_the_hash_of_the_body() -> None:
    other = leaf_hash(CheckpointRecord(note=b"other").encode())
    refuses(Code.BAD_DIGEST, 9, lambda: Archive().record(note_message(dig=other)))
    whole = sha256(encode_audit_body([], [NOTE])).digest()
    refuses(Code.BAD_DIGEST, 9, lambda: Archive().record(note_message(dig=whole)))
    swapped = root([leaf_hash(NOTE), *(leaf_hash(item) for item in ITEMS)])
    refuses(Code.BAD_DIGEST, 9, lambda: Archive().record(audit_message(ITEMS, [NOTE], dig=swapped)))


@pytest.mark.parametrize(
    "value",
    [
        [],
        [2, [], [NOTE]],
        [1, [], []],
        [1, {}, [NOTE]],
        [1, [], ["record"]],
        [1, [NOTE], []],
        [1, [], [ITEMS[0]]],
        [1, [], [NOTE], []],
        [1, [ITEMS[0], ITEMS[0]], [NOTE]],
        [1, [], [encode({"v": 1, "k": "checkpoint", "not": b"n", "x": 1})]],
    ],
)
def test_step_09_refuses_a_body_that_is_not_one(value: list[Value]) -> None:
    halves = [half for half in value[1:] if isinstance(half, list)]
    leaves = [leaf_hash(item) for half in halves for item in half if isinstance(item, bytes)]
    message = replace(note_message(dig=root(leaves)), body=encode(value))
    refuses(Code.BAD_DIGEST, 9, lambda: Archive().record(message))


def test_step_10_refuses_a_user_context_beside_a_record() -> None:
    refuses(Code.BAD_CONTEXT, 10, lambda: Archive().record(replace(note_message(), elements={5: statement()})))


def test_step_11_refuses_ancestors_beside_a_record() -> None:
    message = replace(note_message(), elements={6: (root_task().ancestor,)})
    refuses(Code.BAD_CHAIN, 11, lambda: Archive().record(message))


# The decided message inside it.


def test_step_02_refuses_a_decided_header_that_is_none() -> None:
    refuses(Code.MALFORMED, 2, lambda: Archive().decided(DECISION._replace(header=b"\x80"), ITEMS))


def test_step_05_accepts_a_decision_at_most_5_s_after_its_entry() -> None:
    time = DECISION.place.time - 5 * SECOND
    assert Archive(time=time).decided(DECISION, ITEMS).header == MESSAGE.header


def test_step_05_refuses_a_decision_of_later_than_its_entry() -> None:
    time = DECISION.place.time - 5 * SECOND - 1
    refuses(Code.NOT_YET_VALID, 5, lambda: Archive(time=time).decided(DECISION, ITEMS))
    core = DECISION._replace(place=CorePlace(opened=NOW + 2 * SECOND + 5 * SECOND + 1))
    refuses(Code.NOT_YET_VALID, 5, lambda: Archive().decided(core, ITEMS))


def test_step_07_refuses_a_decided_message_without_its_credential() -> None:
    refuses(Code.BAD_CREDENTIAL, 7, lambda: Archive().decided(DECISION, ITEMS[1:]))


def test_step_07_judges_a_decided_message_at_its_own_time() -> None:
    short = ISSUER.sealer(agent("planner"), exp=NOW + 10 * SECOND)
    message = Message(sealer=short, context=None, ancestors=())
    evidence = [credential_item(short.credential)]
    archive, expiry = Archive(time=NOW + MINUTE), NOW + 10 * SECOND
    assert archive.decided(about(message, place=stored_at(expiry - 1)), evidence).header.crd == short.crd
    refuses(Code.CREDENTIAL_EXPIRED, 7, lambda: archive.decided(about(message, place=stored_at(expiry)), evidence))


def test_step_08_refuses_a_decided_message_under_another_signature() -> None:
    refuses(Code.BAD_SIGNATURE, 8, lambda: Archive().decided(DECISION._replace(proof=FORGED), ITEMS))
    forged = Message(sealer=replace(PLANNER, key=signing_key("thief")), fields={"key": PLANNER.key.public.raw})
    refuses(Code.BAD_SIGNATURE, 8, lambda: Archive().decided(about(forged), ITEMS))


def test_step_09_compares_a_body_where_one_is_given() -> None:
    assert Archive().decided(DECISION, ITEMS, body=BODY).header == MESSAGE.header
    refuses(Code.BAD_DIGEST, 9, lambda: Archive().decided(DECISION, ITEMS, body=BODY + b" "))


def test_step_09_compares_a_body_where_one_is_recorded() -> None:
    kept = DECISION._replace(body=BODY)
    assert Archive().decided(kept, ITEMS).header == MESSAGE.header
    assert Archive().decided(kept, ITEMS, body=BODY).header == MESSAGE.header
    refuses(Code.BAD_DIGEST, 9, lambda: Archive().decided(kept, ITEMS, body=b""))
    refuses(Code.BAD_DIGEST, 9, lambda: Archive().decided(DECISION._replace(body=b""), ITEMS))
    refuses(Code.BAD_DIGEST, 9, lambda: Archive().decided(DECISION._replace(body=BODY + b" "), ITEMS, body=BODY))


def test_step_10_refuses_a_context_that_is_not_there() -> None:
    rest = [item for name, item in EVIDENCE.items() if name != "context"]
    refuses(Code.BAD_CONTEXT, 10, lambda: Archive().decided(DECISION, rest))


def test_step_10_refuses_a_context_without_its_credential() -> None:
    rest = [item for name, item in EVIDENCE.items() if name != "context credential"]
    refuses(Code.BAD_CREDENTIAL, 10, lambda: Archive().decided(DECISION, rest))


def test_step_10_refuses_a_context_under_another_signature() -> None:
    items = [item for name, item in EVIDENCE.items() if name != "context"]
    items.append(context_item(statement().payload, FORGED))
    refuses(Code.BAD_SIGNATURE, 10, lambda: Archive().decided(DECISION, items))


def test_step_10_refuses_a_context_whose_issuer_may_not_mint() -> None:
    archive = Archive(profile=ArchiveProfile(names=NAMES, minters=frozenset({agent("planner")})))
    refuses(Code.CONTEXT_ISSUER_REFUSED, 10, lambda: archive.decided(DECISION, ITEMS))


def test_step_10_refuses_what_is_named_as_a_context_and_is_none() -> None:
    message = Message(fields={"ctx": sha256(b"none").digest()})
    evidence = [credential_item(PLANNER.credential), context_item(b"none", FORGED)]
    refuses(Code.BAD_CONTEXT, 10, lambda: Archive().decided(about(message), evidence))


def test_step_11_refuses_an_ancestor_that_is_not_there() -> None:
    rest = [item for name, item in EVIDENCE.items() if name != "ancestor 1"]
    refuses(Code.BAD_CHAIN, 11, lambda: Archive().decided(DECISION, rest))


def test_step_11_refuses_an_ancestor_without_its_credential() -> None:
    parent = Message(sealer=EDGE, context=None, ancestors=(), fields={"aud": PLANNER.iss.value, "to": "task.planner.x"})
    child = Message(context=None, ancestors=(parent.ancestor(),))
    evidence = [credential_item(PLANNER.credential), ancestor_item(parent.raw(), parent.prf())]
    refuses(Code.BAD_CREDENTIAL, 11, lambda: Archive().decided(about(child), evidence))
    complete = [*evidence, credential_item(EDGE.credential)]
    assert len(Archive().decided(about(child), complete).chain) == 2


def test_step_11_refuses_an_ancestor_under_another_signature() -> None:
    items = [item for name, item in EVIDENCE.items() if name != "ancestor 1"]
    items.append(ancestor_item(root_task().header.raw, FORGED))
    refuses(Code.BAD_SIGNATURE, 11, lambda: Archive().decided(DECISION, items))


def test_step_11_refuses_what_is_named_as_an_ancestor_and_is_none() -> None:
    message = Message(context=None, fields={"par": sha256(b"none").digest()})
    evidence = [credential_item(PLANNER.credential), ancestor_item(b"none", FORGED)]
    refuses(Code.MALFORMED, 11, lambda: Archive().decided(about(message), evidence))


def test_step_11_refuses_a_chain_that_had_ended() -> None:
    message = Message(fields={"exp": NOW + 10 * SECOND, "end": NOW + 10 * SECOND})
    archive = Archive(time=NOW + MINUTE)
    assert archive.decided(about(message, place=stored_at(NOW + 10 * SECOND - 1)), ITEMS).header.end
    refuses(Code.BAD_CHAIN, 11, lambda: archive.decided(about(message, place=stored_at(NOW + 10 * SECOND)), ITEMS))


def test_step_11_refuses_over_eight_ancestors() -> None:
    links = [Message(sealer=RECORDER, context=None, ancestors=())]
    for _ in range(9):
        links.append(Message(sealer=RECORDER, context=None, ancestors=(links[-1].ancestor(),)))
    evidence = [credential_item(RECORDER.credential), *(ancestor_item(link.raw(), link.prf()) for link in links[:-1])]
    assert len(Archive().decided(about(links[8]), evidence).chain) == 9
    refuses(Code.CHAIN_TOO_LONG, 11, lambda: Archive().decided(about(links[9]), evidence))
