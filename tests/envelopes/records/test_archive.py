"""The archive profile as a whole; its steps one by one are in test_archive_steps.py."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

import pytest
from support.acceptance import BODY, INVENTORY, MINTERS, Message, refuses, root_task, statement
from support.audit import RECORDER, Archive, audit_message, decision_of, evidence_items, opened
from support.envelopes import NAMES, NOW

from sealbus.envelopes.errors import Code
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.records.archive import ArchiveProfile
from sealbus.envelopes.records.body import ancestor_item, context_item
from sealbus.envelopes.records.decision import CorePlace

MESSAGE = opened()
DECISION = decision_of(MESSAGE)
EVIDENCE = evidence_items(MESSAGE)


def test_an_audit_message_is_opened_at_its_time() -> None:
    audit = Archive().record(audit_message(list(EVIDENCE.values()), [DECISION.encode()]))
    assert audit.header.iss == INVENTORY
    assert audit.credential == RECORDER.credential
    assert list(audit.body.records.values()) == [DECISION]
    assert audit.time == NOW + 2 * SECOND
    assert "VerifiedAudit(header=" in repr(audit)


def test_a_decided_message_is_proved_again() -> None:
    decided = Archive().decided(DECISION, list(EVIDENCE.values()), body=BODY)
    assert decided.header == MESSAGE.header
    assert MESSAGE.context is not None
    assert decided.context is not None
    assert (decided.context.txn, decided.context.sub) == (MESSAGE.context.txn, MESSAGE.context.sub)
    assert decided.chain == MESSAGE.chain


def test_a_decided_message_without_user_and_chain() -> None:
    plain = opened(Message(context=None, ancestors=()))
    decided = Archive().decided(decision_of(plain), list(evidence_items(plain).values()))
    assert (decided.header, decided.context, decided.chain) == (plain.header, None, (plain.header,))


def test_a_core_message_counts_by_when_it_was_opened() -> None:
    core = DECISION._replace(place=CorePlace(opened=NOW + SECOND))
    assert Archive().decided(core, list(EVIDENCE.values())).header == MESSAGE.header


@pytest.mark.parametrize(
    ("code", "step", "message"),
    [
        (Code.WRONG_KIND, 3, Message()),
        (Code.BAD_DIGEST, 9, audit_message([], [DECISION.encode()], dig=bytes(32))),
        (Code.BAD_CONTEXT, 10, replace(audit_message([], [DECISION.encode()]), elements={5: statement()})),
        (Code.BAD_CHAIN, 11, replace(audit_message([], [DECISION.encode()]), elements={6: (root_task().ancestor,)})),
    ],
)
def test_an_audit_message_that_is_refused(code: Code, step: int, message: Message) -> None:
    refuses(code, step, lambda: Archive().record(message))


@pytest.mark.parametrize(
    ("missing", "code", "step"),
    [
        ("credential", Code.BAD_CREDENTIAL, 7),
        ("context", Code.BAD_CONTEXT, 10),
        ("context credential", Code.BAD_CREDENTIAL, 10),
        ("ancestor 1", Code.BAD_CHAIN, 11),
    ],
)
def test_missing_evidence(missing: str, code: Code, step: int) -> None:
    rest = [item for name, item in EVIDENCE.items() if name != missing]
    refuses(code, step, lambda: Archive().decided(DECISION, rest))


def test_missing_evidence_of_who_sent_an_ancestor() -> None:
    root = Message(context=None, ancestors=(), fields={"aud": MESSAGE.header.iss.value, "to": "task.planner.plan"})
    message = opened(Message(context=None, ancestors=(replace(root, sealer=RECORDER).ancestor(),)))
    evidence = evidence_items(message)
    del evidence["ancestor credential 1"]
    refuses(Code.BAD_CREDENTIAL, 11, lambda: Archive().decided(decision_of(message), list(evidence.values())))


def test_another_body_and_a_time_to_come() -> None:
    evidence = list(EVIDENCE.values())
    refuses(Code.BAD_DIGEST, 9, lambda: Archive().decided(DECISION, evidence, body=b"{}"))
    late = Archive(time=DECISION.place.time - 5 * SECOND - 1)
    refuses(Code.NOT_YET_VALID, 5, lambda: late.decided(DECISION, evidence))


def test_evidence_that_is_no_context_and_no_header() -> None:
    # Named rightly by a signed header: only its signer can have put such a hash there.
    nonsense = context_item(b"nonsense", DECISION.proof)
    ctx = Message(fields={"ctx": sha256(b"nonsense").digest()})
    record = DECISION._replace(header=ctx.raw(), proof=ctx.prf())
    refuses(Code.BAD_CONTEXT, 10, lambda: Archive().decided(record, [EVIDENCE["credential"], nonsense]))
    par = Message(context=None, fields={"par": sha256(b"nonsense").digest()})
    record = DECISION._replace(header=par.raw(), proof=par.prf())
    no_header = ancestor_item(b"nonsense", DECISION.proof)
    refuses(Code.MALFORMED, 11, lambda: Archive().decided(record, [EVIDENCE["credential"], no_header]))


def test_a_chain_longer_than_any_live_one() -> None:
    links = [Message(context=None, ancestors=())]
    for _ in range(9):
        links.append(Message(context=None, ancestors=(links[-1].ancestor(),)))
    evidence = [EVIDENCE["credential"], *(ancestor_item(link.raw(), link.prf()) for link in links[:-1])]
    record = DECISION._replace(header=links[-1].raw(), proof=links[-1].prf())
    refuses(Code.CHAIN_TOO_LONG, 11, lambda: Archive().decided(record, evidence))
    # One too many is enough: of a longer one no more is looked for.
    for _ in range(3):
        links.append(Message(context=None, ancestors=(links[-1].ancestor(),)))
    evidence = [EVIDENCE["credential"], *(ancestor_item(link.raw(), link.prf()) for link in links[-10:-1])]
    record = DECISION._replace(header=links[-1].raw(), proof=links[-1].prf())
    refuses(Code.CHAIN_TOO_LONG, 11, lambda: Archive().decided(record, evidence))


def test_who_may_mint_is_the_readers_setting() -> None:
    nobody = Archive(profile=ArchiveProfile(names=NAMES))
    evidence = list(EVIDENCE.values())
    refuses(Code.CONTEXT_ISSUER_REFUSED, 10, lambda: nobody.decided(DECISION, evidence))
    assert nobody.profile.minters != MINTERS
