"""Checkpoints with cosignatures: each line counts, and holds, or the whole note is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from independent import verify_export as independent
from support.cosigners import ML_DSA_44, Cosigner, cosigned, policy_text
from support.log_world import ORIGIN, LogKey, note, root_document

from sealbus.envelopes.errors import Code, LogError
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.log.checkpoint import SignedCheckpoint, open_checkpoint, open_strictly
from sealbus.envelopes.log.note import KnownKey, NoteVerifier, keep_signatures, leave_out_cosignatures
from sealbus.envelopes.log.witness_policy import WitnessPolicy, open_cosigned

LOG, STRANGER = LogKey("first"), LogKey("stranger")
KEYS = [NoteVerifier.parse(LOG.vkey)]
PLAIN = note(3, bytes(32), [LOG])
TEXT = PLAIN.decode().partition("\n\n")[0] + "\n"
OLD, NEW, REMOVED = Cosigner("old"), Cosigner("new", ML_DSA_44), Cosigner("removed")
POLICY = WitnessPolicy.parse(policy_text([LOG], [OLD, NEW], "group g any old new", "quorum g").encode())


def opened(data: bytes, policy: WitnessPolicy = POLICY) -> SignedCheckpoint:
    return open_cosigned(data, ORIGIN, KEYS, policy)


@pytest.mark.parametrize("cosigners", [[], [OLD], [NEW], [OLD, NEW], [NEW, OLD]], ids=lambda found: str(len(found)))
def test_by_known_witnesses(cosigners: list[Cosigner]) -> None:
    data = cosigned(PLAIN, *cosigners)
    signed = opened(data)
    assert signed.cosigners == tuple(one.label for one in cosigners)
    assert (signed.checkpoint.size, signed.signers, signed.note) == (3, tuple(KEYS), data)


def refused(data: bytes, code: Code, policy: WitnessPolicy = POLICY) -> None:
    with pytest.raises(LogError) as raised:
        opened(data, policy)
    assert raised.value.code is code


@pytest.mark.parametrize("stranger", [REMOVED, Cosigner("gone", ML_DSA_44)])
def test_by_a_witness_that_is_not_in_the_policy(stranger: Cosigner) -> None:
    refused(cosigned(PLAIN, OLD, stranger), Code.UNTRUSTED_NOTE)


def test_by_the_key_of_a_witness_under_another_name() -> None:
    line = OLD.line(OLD.signature(TEXT)).replace(OLD.name, "another.example/witness")
    refused(PLAIN + line.encode(), Code.UNTRUSTED_NOTE)


def test_by_the_name_of_a_witness_with_another_key() -> None:
    line = REMOVED.line(REMOVED.signature(TEXT)).replace(REMOVED.name, OLD.name)
    refused(PLAIN + line.encode(), Code.UNTRUSTED_NOTE)


@pytest.mark.parametrize("witness", [OLD, NEW])
def test_the_same_witness_twice(witness: Cosigner) -> None:
    refused(cosigned(PLAIN, witness, witness), Code.BAD_NOTE)


def test_by_witnesses_alone() -> None:
    refused(cosigned(f"{TEXT}\n".encode(), OLD, NEW), Code.UNTRUSTED_NOTE)
    refused(cosigned(note(3, bytes(32), [STRANGER]), OLD), Code.UNTRUSTED_NOTE)


@pytest.mark.parametrize("witness", [OLD, NEW])
@pytest.mark.parametrize("other", [f"{ORIGIN}\n4\n", f"{ORIGIN}/2\n3\n"])
def test_of_another_checkpoint(witness: Cosigner, other: str) -> None:
    text = other + TEXT.split("\n")[2] + "\n"
    refused(PLAIN + witness.line(witness.signature(text)).encode(), Code.BAD_NOTE_SIGNATURE)
    root = TEXT.replace("AAAA", "AAAB", 1)
    refused(PLAIN + witness.line(witness.signature(root)).encode(), Code.BAD_NOTE_SIGNATURE)


@pytest.mark.parametrize("witness", [OLD, NEW])
@pytest.mark.parametrize("time", [0, 2**63, 2**64 - 1])
def test_at_a_time_that_says_nothing(witness: Cosigner, time: int) -> None:
    refused(PLAIN + witness.line(witness.signature(TEXT, time)).encode(), Code.BAD_NOTE_SIGNATURE)


@pytest.mark.parametrize("witness", [OLD, NEW])
@pytest.mark.parametrize("time", [1, 2**63 - 1])
def test_at_any_other_time(witness: Cosigner, time: int) -> None:
    assert opened(PLAIN + witness.line(witness.signature(TEXT, time)).encode()).cosigners == (witness.label,)


@pytest.mark.parametrize("witness", [OLD, NEW])
def test_altered_or_cut(witness: Cosigner) -> None:
    good = witness.signature(TEXT)
    for at in (0, 7, 8, len(good) // 2, len(good) - 1):
        altered = good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]
        refused(PLAIN + witness.line(altered).encode(), Code.BAD_NOTE_SIGNATURE)
    for cut in (good[:-1], good[:8], good[:1], good[8:], good + b"\0"):
        refused(PLAIN + witness.line(cut).encode(), Code.BAD_NOTE_SIGNATURE)


def test_as_a_signature_of_the_note() -> None:
    """A witness signs more than the text, so that its key cannot be used as that of a log."""
    signature = OLD.private.sign(TEXT.encode())
    refused(PLAIN + OLD.line(signature).encode(), Code.BAD_NOTE_SIGNATURE)
    refused(PLAIN + OLD.line(bytes(8) + signature).encode(), Code.BAD_NOTE_SIGNATURE)


def test_one_seed_of_both_types() -> None:
    """The type is in the key's id."""
    other = Cosigner(OLD.label, ML_DSA_44)
    refused(cosigned(PLAIN, other), Code.UNTRUSTED_NOTE)


def test_without_a_policy() -> None:
    data = cosigned(PLAIN, OLD)
    assert open_checkpoint(data, origin=ORIGIN, verifiers=KEYS).cosigners == ()
    with pytest.raises(LogError) as raised:
        open_strictly(data, ORIGIN, KEYS)
    assert raised.value.code is Code.UNTRUSTED_NOTE


def test_by_as_many_as_a_policy_has() -> None:
    most = [Cosigner(f"w{number}", ML_DSA_44) for number in range(DEFAULT_LIMITS.witness_policy_lines)]
    policy = WitnessPolicy.parse(policy_text([LOG], most, "quorum none").encode())
    data = cosigned(PLAIN, *most)
    assert DEFAULT_LIMITS.published_note_bytes < len(data) < DEFAULT_LIMITS.note_bytes
    assert len(opened(data, policy).cosigners) == len(most)
    refused(data + b"\xe2\x80\x94 x " + b"AAAA" * 8_000 + b"\n", Code.BAD_NOTE, policy)


@pytest.mark.parametrize("witness", [OLD, NEW])
def test_no_byte_of_it_may_be_another(witness: Cosigner) -> None:
    """Not even one that a C2SP reader would pass over."""
    data, root = witness.cosign(PLAIN), independent_root()
    for at in range(len(data)):
        altered = data[:at] + bytes([data[at] ^ (1 << at % 7)]) + data[at + 1 :]
        with pytest.raises(LogError):
            opened(altered)
        with pytest.raises(independent.Bad):
            independent.read_checkpoint(altered, root)


def independent_root() -> independent.Root:
    return replace(
        independent.read_root(json.dumps(root_document([LOG], [bytes(32)])).encode()),
        policy=independent.read_policy(POLICY.text),
    )


def test_lines_by_others_are_left_out() -> None:
    data = cosigned(PLAIN, REMOVED, NEW, OLD)
    keys: list[KnownKey] = [*KEYS, *POLICY.names]
    kept = keep_signatures(data, keys)
    assert opened(kept).cosigners == ("new", "old")
    assert keep_signatures(kept, keys) == kept
    assert keep_signatures(data, KEYS) == leave_out_cosignatures(data) == leave_out_cosignatures(PLAIN) == PLAIN
    with pytest.raises(LogError) as raised:
        keep_signatures(data, [NoteVerifier.parse(STRANGER.vkey)])
    assert raised.value.code is Code.UNTRUSTED_NOTE
