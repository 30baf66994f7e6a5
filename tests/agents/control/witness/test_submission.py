"""What is cosigned of what is submitted: the order of the checks, proofs right and wrong, and any sequence of requests."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.plain_log import PlainLog, body, leaf, signed

from sealbus.agents.control.witness.submission import (
    SUBMISSION_BYTES,
    OldSizeDiffers,
    Submission,
    SubmissionRefused,
    WitnessedLog,
    check_extension,
    open_submission,
)
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.log.checkpoint import Checkpoint
from sealbus.envelopes.log.cosignature import CosignatureSigner, CosignatureType
from sealbus.envelopes.log.note import NoteSigner, base64_text

ORIGIN = "log.example.com/plain"
KEY = NoteSigner(ORIGIN, bytes(32))
OTHER = NoteSigner("other.example.com", bytes([1]) * 32)
LOG = PlainLog(KEY, [leaf(number) for number in range(40)])
FORK = PlainLog(KEY, [*LOG.leaves[:5], *(leaf(number, "fork") for number in range(5, 40))])
KNOWN = WitnessedLog(ORIGIN, (KEY.verifier,))
LOGS = {ORIGIN: KNOWN}


def last(log: PlainLog, size: int) -> Checkpoint | None:
    return Checkpoint(ORIGIN, size, log.root(size)) if size else None


def judged(request: bytes, held: Checkpoint | None = None, logs: dict[str, WitnessedLog] = LOGS) -> int:
    """Return the status that a request gets."""
    try:
        check_extension(open_submission(request, logs), held)
    except SubmissionRefused as error:
        return error.status
    return 200


def opened(request: bytes) -> Submission:
    return open_submission(request, LOGS)


def test_the_first_checkpoint_needs_no_proof_and_further_ones_do() -> None:
    assert judged(LOG.request(0, 3)) == 200
    assert judged(LOG.request(3, 27), last(LOG, 3)) == 200
    assert judged(LOG.request(3, 27, path=[]), last(LOG, 3)) == 422
    assert judged(LOG.request(0, 3, path=[leaf(1)])) == 422
    assert judged(LOG.request(3, 3), last(LOG, 3)) == 200
    assert judged(LOG.request(3, 3, path=[leaf(1)]), last(LOG, 3)) == 422


def test_all_proofs_between_small_sizes() -> None:
    for old in range(1, 20):
        for new in range(old, 20):
            held, path = last(LOG, old), LOG.proof(old, new)
            assert judged(LOG.request(old, new), held) == 200
            wrong = [path[1:], [*path, bytes(32)], path[::-1] if path != path[::-1] else [*path, *path, leaf(0)]]
            wrong += [[*path[:at], bytes(32), *path[at + 1 :]] for at in range(len(path))]
            for other in wrong:
                if other != path:
                    assert judged(LOG.request(old, new, path=other), held) == 422


def test_a_fork_of_the_same_or_another_size() -> None:
    assert judged(FORK.request(20, 20), last(LOG, 20)) == 422
    assert judged(FORK.request(20, 30), last(LOG, 20)) == 422
    assert judged(FORK.request(5, 30), last(LOG, 5)) == 200, "they fork after the fifth"


def test_what_goes_back_or_skips_is_told_the_size() -> None:
    for request, held in (
        (LOG.request(0, 3), last(LOG, 20)),
        (LOG.request(10, 30), last(LOG, 20)),
        (LOG.request(25, 30), last(LOG, 20)),
        (LOG.request(7, 30), None),
    ):
        with pytest.raises(OldSizeDiffers) as caught:
            check_extension(opened(request), held)
        assert (caught.value.status, caught.value.size) == (409, held.size if held is not None else 0)


def test_an_empty_log_has_one_root() -> None:
    assert judged(LOG.request(0, 0)) == 200
    assert judged(LOG.request(0, 0), Checkpoint(ORIGIN, 0, sha256().digest())) == 200
    assert judged(LOG.request(0, 9), Checkpoint(ORIGIN, 0, sha256().digest())) == 200
    assert judged(LOG.request(0, 0, note=LOG.note(0, bytes(32)))) == 422


def test_the_checks_are_in_order() -> None:
    """Each request has all the faults of those after it."""
    unknown = PlainLog(OTHER, LOG.leaves, origin="unknown.example.com")
    not_signed = signed(LOG.text(4, bytes(32)), OTHER)
    bad_proof = [bytes(32)]
    held = last(LOG, 7)
    assert judged(body("new 9", bad_proof, unknown.note(4, bytes(32))), held) == 404
    assert judged(body("new 9", bad_proof, not_signed), held) == 403
    assert judged(body("new 9", bad_proof, LOG.note(4, bytes(32))), held) == 400
    assert judged(body("old 9", bad_proof, LOG.note(4, bytes(32))), held) == 400
    assert judged(body("old 4", bad_proof, LOG.note(4, bytes(32))), held) == 409
    assert judged(body("old 7", bad_proof, LOG.note(7, bytes(32))), held) == 422


def test_signatures_of_a_log() -> None:
    good = LOG.note(3)
    bad = f"\u2014 {ORIGIN} {base64_text(KEY.verifier.key_id + bytes(64))}\n".encode()
    stranger = signed("x\n", OTHER).partition(b"\n\n")[2]
    assert judged(body("old 0", [], good + stranger)) == 200
    assert judged(body("old 0", [], stranger.join(good.partition(b"\n\n")[::2]))) == 403, "no empty line any more"
    assert judged(body("old 0", [], good + bad)) == 403
    assert judged(body("old 0", [], LOG.text(3).encode() + b"\n" + stranger)) == 403
    assert judged(body("old 0", [], good.replace(b"\n3\n", b"\n4\n"))) == 403
    submission = opened(body("old 0", [], good + stranger + good.partition(b"\n\n")[2]))
    assert [line.name for line in submission.signatures] == [ORIGIN], "once, and no stranger's"


@pytest.mark.parametrize("kind", list(CosignatureType), ids=[kind.name for kind in CosignatureType])
def test_a_log_that_signs_as_witnesses_do(kind: CosignatureType) -> None:
    """tlog-checkpoint recommends ML-DSA-44 for logs, too."""
    signer = CosignatureSigner(ORIGIN, kind, bytes(32))
    logs = {ORIGIN: WitnessedLog.parse(ORIGIN, (KEY.verifier.text, signer.verifier.text))}
    log = PlainLog(signer, LOG.leaves)
    assert judged(log.request(0, 3), None, logs) == 200
    assert judged(LOG.request(0, 3), None, logs) == 200
    assert judged(log.request(0, 3)) == 403


def test_extension_lines_are_taken_up_to_a_length() -> None:
    room = 8_192 - len(LOG.text(3).encode()) - 1
    for more, status in (
        ("one\ntwo\n", 200),
        ("x" * room + "\n", 200),
        ("x" * (room + 1) + "\n", 400),
        ("\none\n", 400),
    ):
        assert judged(body("old 0", [], LOG.note(3, more=more))) == status


@pytest.mark.parametrize(
    "first",
    [
        "",
        "old",
        "old ",
        "old x",
        "old 03",
        "old -1",
        "old 3 ",
        " old 3",
        "Old 3",
        "3",
        "10 stuff",
        "old 9007199254740992",
        "ol\u00e4 3",
    ],
)
def test_a_first_line_that_is_no_old_size(first: str) -> None:
    assert judged(body(first, LOG.proof(3, 9), LOG.note(9)), last(LOG, 3)) == 400


def test_malformed_bodies() -> None:
    note, line = LOG.note(9), base64_text(leaf(1)).encode()
    for request in (b"", b"old 0\n", b"old 0\n" + note[:20], b"\xff" * 99, b"old 3\n" + line + b"\n"):
        assert judged(request) == 400
    for proof in (
        b"x",
        line[:-4],
        line[:-1],
        line + b"=",
        b" " + line,
        base64_text(bytes(31)).encode(),
        line.replace(b"=", b""),
    ):
        assert judged(b"old 3\n" + proof + b"\n\n" + note, last(LOG, 3)) == 400
    for wrong in ([bytes(31), bytes(32)], [bytes(32), bytes(31)], [bytes(33)]):
        assert judged(LOG.request(3, 9, path=wrong), last(LOG, 3)) == 400
    for count, status in ((63, 422), (64, 400)):
        assert judged(LOG.request(3, 9, path=[leaf(1)] * count), last(LOG, 3)) == status
    assert judged(b"old 0\n\n" + note[:-1]) == 403
    assert judged(b"old 0\n\n" + b"\xff\n" + note) == 404
    for text in (f"{ORIGIN}\n03\nxx\n", f"{ORIGIN}\n", f"{ORIGIN}\n3\n{base64_text(bytes(31))}\n"):
        assert judged(body("old 0", [], signed(text, KEY))) == 400
    assert judged(body("old 0", [], LOG.note(9, more="x" * SUBMISSION_BYTES + "\n"))) == 403


@given(
    st.lists(
        st.tuples(st.sampled_from([LOG, FORK]), st.integers(0, 12), st.integers(0, 12), st.sampled_from([LOG, FORK]))
    )
)
def test_no_sequence_of_requests_makes_it_go_back(requests: list[tuple[PlainLog, int, int, PlainLog]]) -> None:
    """Nor are two checkpoints cosigned that are not of one history."""
    held: Checkpoint | None = None
    cosigned = [(0, sha256().digest())]
    for log, old, new, prover in requests:
        try:
            held = check_extension(opened(log.request(old, new, path=prover.proof(old, new))), held)
        except SubmissionRefused:
            continue
        assert held.size >= cosigned[-1][0]
        cosigned.append((held.size, held.root))
    assert any(all(log.root(size) == root for size, root in cosigned) for log in (LOG, FORK))


def test_which_logs_there_are() -> None:
    assert WitnessedLog.parse(ORIGIN, (KEY.verifier.text,)) == KNOWN
    assert KNOWN.origin_hash == sha256(ORIGIN.encode()).hexdigest()
    for origin, keys in (
        ("", (KEY.verifier.text,)),
        ("a\nb", (KEY.verifier.text,)),
        ("o" * 256, (KEY.verifier.text,)),
        (ORIGIN, ()),
        (ORIGIN, ("key",)),
        (ORIGIN, (KEY.secret_text(),)),
    ):
        with pytest.raises(ConfigurationError):
            WitnessedLog.parse(origin, keys)
    WitnessedLog.parse("o" * 255, (KEY.verifier.text,))
