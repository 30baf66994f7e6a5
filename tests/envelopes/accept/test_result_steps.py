"""The steps of the result profile, by number (SPEC.md section 7). Step 6 does not apply: `re` is the freshness."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.acceptance import ISSUER, Message, refuses, root_task, statement
from support.envelopes import HOUR, MINUTE, NOW, TRUST_DOMAIN, Issuer, agent, message_id, private_key, signing_key
from support.results import CALL, TASK, Requester, answer

from sealbus.envelopes.accept.open_request import STATUSES, OpenRequest, PendingRequest
from sealbus.envelopes.errors import Code
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.trust.bundles import JwtBundle, Trust, TrustBundles


def test_step_01_refuses_what_is_no_envelope() -> None:
    requester = Requester()
    refuses(Code.MALFORMED, 1, lambda: requester.reply(Message(elements={2: "text"})))
    refuses(Code.UNSUPPORTED_FORMAT, 1, lambda: requester.reply(Message(elements={0: 2})))
    refuses(Code.TOO_LARGE, 1, lambda: requester.status(Message(body=b"b" * 917_505)))


@pytest.mark.parametrize(
    "message",
    [
        answer(seq=0),
        answer(fin=True),
        answer(re=None),
        answer(aud=None),
        answer(ctx=bytes(32)),
        answer(par=bytes(32)),
        answer(end=NOW + MINUTE),
        answer(exp=NOW + MINUTE + 1),
        answer("chunk", seq=None),
        answer("chunk", exp=NOW + MINUTE + 1),
    ],
)
def test_step_02_refuses_a_header_that_is_not_of_its_kind(message: Message) -> None:
    refuses(Code.MALFORMED, 2, lambda: Requester().reply(message))


def test_step_02_refuses_a_status_that_is_not_of_its_kind() -> None:
    for message in (answer("status", seq=None), answer("status", exp=NOW + 24 * HOUR + 1)):
        refuses(Code.MALFORMED, 2, lambda message=message: Requester().status(message))  # type: ignore[misc]


def test_step_03_accepts_replies_and_chunks_in_the_inbox_and_statuses_on_their_subject() -> None:
    assert Requester().reply(answer()).final
    assert not Requester().reply(answer("chunk")).final
    assert Requester().status(answer("status")) is not None


def test_step_03_refuses_a_kind_of_the_other_subscription() -> None:
    refuses(Code.WRONG_KIND, 3, lambda: Requester().reply(answer("status")))
    for kind in ("reply", "chunk"):
        refuses(Code.WRONG_KIND, 3, lambda kind=kind: Requester().status(answer(kind)))  # type: ignore[misc]


def test_step_03_refuses_what_is_no_result() -> None:
    refuses(Code.WRONG_KIND, 3, lambda: Requester().reply(Message()))
    refuses(Code.WRONG_KIND, 3, lambda: Requester().status(Message()))


def test_step_03_refuses_another_subject_than_it_was_delivered_on() -> None:
    refuses(Code.WRONG_SUBJECT, 3, lambda: Requester(subject="_INBOX.planner.9").reply(answer()))
    refuses(Code.WRONG_SUBJECT, 3, lambda: Requester(subject="status.planner.00").status(answer("status")))


@pytest.mark.parametrize("to", ["_INBOX.inventory.1", "reply.planner.1", "_INBOX.planner"])
def test_step_03_refuses_a_reply_outside_the_inbox_of_its_audience(to: str) -> None:
    refuses(Code.WRONG_SUBJECT, 3, lambda: Requester(subject=to).reply(answer(to=to)))


@pytest.mark.parametrize(
    "to", [f"status.inventory.{TASK.id.hex()}", "status.planner.zz", f"status.planner.{TASK.id.hex()}.x"]
)
def test_step_03_refuses_a_status_elsewhere(to: str) -> None:
    refuses(Code.WRONG_SUBJECT, 3, lambda: Requester(subject=to).status(answer("status", to=to)))


def test_step_04_refuses_an_answer_for_another() -> None:
    refuses(Code.WRONG_AUDIENCE, 4, lambda: Requester(own="inventory").reply(answer()))
    refuses(Code.WRONG_AUDIENCE, 4, lambda: Requester(own="inventory").status(answer("status")))


def test_step_04_refuses_what_answers_nothing_of_ours() -> None:
    refuses(Code.UNEXPECTED_REPLY, 4, lambda: Requester().reply(answer(re=bytes(32))))
    refuses(Code.UNEXPECTED_REPLY, 4, lambda: Requester().status(answer("status", re=bytes(32))))


def test_step_04_refuses_an_answer_by_another_than_was_asked() -> None:
    message = answer()
    message = replace(message, sealer=ISSUER.sealer(agent("inventory")))
    refuses(Code.UNEXPECTED_REPLY, 4, lambda: Requester().reply(message))


def test_step_04_refuses_another_inbox_than_the_call_named() -> None:
    to = "_INBOX.planner.2"
    refuses(Code.UNEXPECTED_REPLY, 4, lambda: Requester(subject=to).reply(answer(to=to)))


def test_step_04_refuses_the_status_subject_of_another_task() -> None:
    to = f"status.planner.{message_id(77).hex()}"
    refuses(Code.UNEXPECTED_REPLY, 4, lambda: Requester(subject=to).status(answer("status", to=to)))


def test_step_04_refuses_a_reply_to_a_task_and_a_status_of_a_call() -> None:
    refuses(Code.UNEXPECTED_REPLY, 4, lambda: Requester().reply(answer(re=TASK.digest)))
    refuses(Code.UNEXPECTED_REPLY, 4, lambda: Requester().status(answer("status", re=CALL.digest)))


def test_step_04_refuses_what_comes_after_the_last_answer() -> None:
    requester = Requester()
    requester.reply(answer("chunk", fin=True))
    refuses(Code.UNEXPECTED_REPLY, 4, lambda: requester.reply(answer("chunk", seq=1)))
    refuses(Code.UNEXPECTED_REPLY, 4, lambda: requester.reply(answer()))
    requester.status(answer("status", fin=True))
    refuses(Code.UNEXPECTED_REPLY, 4, lambda: requester.status(answer("status", seq=1)))


def test_step_04_refuses_what_comes_at_end() -> None:
    requester = Requester(now=NOW + MINUTE)
    late = answer(iat=NOW + MINUTE, exp=NOW + 2 * MINUTE)
    refuses(Code.UNEXPECTED_REPLY, 4, lambda: requester.reply(late))
    requester.now -= 1
    assert requester.reply(late).final


def test_step_04_judges_the_end_of_a_task_by_the_stored_time() -> None:
    message = answer("status", iat=NOW + HOUR - SECOND, exp=NOW + 2 * HOUR, fin=True)
    refuses(Code.UNEXPECTED_REPLY, 4, lambda: Requester(now=NOW + HOUR).status(message))
    assert Requester(now=NOW + HOUR - 1).status(message) is not None


def test_step_04_refuses_a_gap_between_chunks() -> None:
    requester = Requester()
    refuses(Code.UNEXPECTED_REPLY, 4, lambda: requester.reply(answer("chunk", seq=1)))
    requester.reply(answer("chunk"))
    refuses(Code.UNEXPECTED_REPLY, 4, lambda: requester.reply(answer("chunk", seq=2)))
    refuses(Code.UNEXPECTED_REPLY, 4, lambda: requester.reply(answer("chunk")))
    assert requester.reply(answer("chunk", seq=1)).header.seq == 1


def test_step_04_refuses_chunks_of_two_keys() -> None:
    requester, other = Requester(), answer("chunk", seq=1)
    other = replace(other, sealer=ISSUER.sealer(agent("pricing"), key=signing_key("another replica")))
    requester.reply(answer("chunk"))
    refuses(Code.UNEXPECTED_REPLY, 4, lambda: requester.reply(other))


def test_step_04_ignores_a_status_seen_before_and_another_of_its_number() -> None:
    requester = Requester()
    assert requester.status(answer("status")) is not None
    assert requester.status(answer("status")) is None
    assert requester.status(answer("status", fin=True, id=message_id(9))) is None
    assert not requester.requests[TASK.digest].closed


def test_step_04_refuses_one_status_too_many_unless_it_is_terminal() -> None:
    requester = Requester()
    for seq in range(STATUSES):
        requester.requests[TASK.digest].take(TASK._replace(kind=Kind.STATUS, seq=seq))
    refuses(Code.UNEXPECTED_REPLY, 4, lambda: requester.status(answer("status", seq=STATUSES)))
    assert requester.status(answer("status", seq=STATUSES, fin=True)) is not None


def test_step_04_does_not_note_what_fails_later() -> None:
    requester, forged = Requester(), answer("chunk", fin=True)
    forged = replace(forged, proof=forged.prf()._replace(signature=b"\x01" * 64))
    refuses(Code.BAD_SIGNATURE, 8, lambda: requester.reply(forged))
    assert not requester.requests[CALL.digest].closed
    assert requester.reply(answer("chunk")).header.seq == 0


def test_step_05_accepts_the_edges_of_its_time() -> None:
    assert Requester(now=NOW - 5 * SECOND).reply(answer()).final
    assert Requester(now=NOW + 30 * SECOND - 1).reply(answer(exp=NOW + 30 * SECOND)).final


def test_step_05_refuses_what_is_not_of_now() -> None:
    refuses(Code.NOT_YET_VALID, 5, lambda: Requester(now=NOW - 5 * SECOND - 1).reply(answer()))
    refuses(Code.EXPIRED, 5, lambda: Requester(now=NOW + 30 * SECOND).reply(answer(exp=NOW + 30 * SECOND)))
    refuses(Code.NOT_YET_VALID, 5, lambda: Requester(now=NOW - 5 * SECOND - 1).status(answer("status")))
    refuses(Code.EXPIRED, 5, lambda: Requester(now=NOW + MINUTE).status(answer("status", exp=NOW + MINUTE)))


def test_step_05_does_not_ask_a_status_whether_it_is_of_now() -> None:
    # Stored within its life and read long after it: a requester that comes back finds out what became of its task.
    assert Requester(now=NOW + SECOND).status(answer("status", exp=NOW + MINUTE)) is not None


def test_step_06_does_not_apply() -> None:
    # The same reply answers the same call in another process that has the handle, and needs no header block.
    for _ in range(2):
        requests = {CALL.digest: OpenRequest(PendingRequest.of(CALL))}
        assert Requester(requests=requests).reply(answer()).final


def test_step_07_refuses_another_credential_than_was_signed() -> None:
    refuses(Code.BAD_CREDENTIAL, 7, lambda: Requester().reply(answer(crd=bytes(32))))
    refuses(Code.BAD_CREDENTIAL, 7, lambda: Requester().status(answer("status", crd=bytes(32))))


def test_step_07_refuses_a_trust_domain_and_a_key_that_are_not_known() -> None:
    nobody = Trust(bundles=TrustBundles())
    other = Issuer(kid="key-2", key=private_key("other issuer"))
    rotated = Trust(bundles=TrustBundles([JwtBundle.parse(TRUST_DOMAIN, other.jwks())]))
    refuses(Code.UNKNOWN_TRUST_DOMAIN, 7, lambda: Requester(trust=nobody).reply(answer()))
    refuses(Code.UNKNOWN_KEY, 7, lambda: Requester(trust=rotated).reply(answer()))


def test_step_07_refuses_a_credential_that_was_revoked() -> None:
    revoked = Trust(bundles=Requester().trust.bundles, revoked_before={agent("pricing"): NOW})
    refuses(Code.REVOKED, 7, lambda: Requester(trust=revoked).reply(answer()))
    refuses(Code.REVOKED, 7, lambda: Requester(trust=revoked).status(answer("status")))


def test_step_07_judges_a_status_by_its_stored_time() -> None:
    message = answer("status")
    message = replace(message, sealer=ISSUER.sealer(agent("pricing"), exp=NOW + MINUTE))
    refuses(Code.CREDENTIAL_EXPIRED, 7, lambda: Requester(now=NOW + MINUTE).status(message))
    assert Requester(now=NOW + MINUTE - 1).status(message) is not None


def test_step_08_refuses_another_signature() -> None:
    requester, reply, status = Requester(), answer(), answer("status")
    reply = replace(reply, proof=reply.prf()._replace(signature=b"\x01" * 64))
    status = replace(status, proof=reply.prf())
    refuses(Code.BAD_SIGNATURE, 8, lambda: requester.reply(reply))
    refuses(Code.BAD_SIGNATURE, 8, lambda: requester.status(status))


def test_step_09_refuses_another_body() -> None:
    reply = answer()
    reply = replace(reply, elements={2: b'{"item":"43"}'})
    refuses(Code.BAD_DIGEST, 9, lambda: Requester().reply(reply))


def test_step_10_refuses_a_user_context() -> None:
    reply = answer()
    reply = replace(reply, elements={5: statement()})
    refuses(Code.BAD_CONTEXT, 10, lambda: Requester().reply(reply))


def test_step_11_refuses_ancestors() -> None:
    reply = answer()
    reply = replace(reply, elements={6: (root_task().ancestor,)})
    refuses(Code.BAD_CHAIN, 11, lambda: Requester().reply(reply))


def test_steps_are_taken_in_order() -> None:
    # Everything about this one is wrong from step 4 on; the first failure is what is told.
    message = answer(re=bytes(32), exp=NOW + 1, crd=bytes(32), dig=bytes(32))
    message = replace(message, proof=message.prf()._replace(signature=b"\x01" * 64))
    message = replace(message, elements={5: statement()})
    refuses(Code.UNEXPECTED_REPLY, 4, lambda: Requester(now=NOW + HOUR).reply(message))
