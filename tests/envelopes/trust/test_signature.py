"""Step 8: signatures over batches (SPEC.md section 4)."""

from __future__ import annotations

import pytest
from support.envelopes import signing_key

from sealbus.envelopes.errors import Code, EnvelopeError, SealError
from sealbus.envelopes.trust.caches import VerifiedRoots
from sealbus.envelopes.trust.merkle import leaf_hash, root
from sealbus.envelopes.trust.proof import Proof
from sealbus.envelopes.trust.signature import CONTEXT_TYPE, MESSAGE_TYPE, pae, sign_batch, verify_proof

KEY = signing_key("planner")
LEAVES = [leaf_hash(bytes([number])) for number in range(5)]


def refused(
    proof: Proof, leaf: bytes = LEAVES[0], payload_type: str = MESSAGE_TYPE, roots: VerifiedRoots | None = None
) -> None:
    with pytest.raises(EnvelopeError) as caught:
        verify_proof(proof, leaf, payload_type, KEY.public, roots if roots is not None else VerifiedRoots())
    assert (caught.value.code, caught.value.step) == (Code.BAD_SIGNATURE, 8)


def test_pae_is_the_published_one() -> None:
    # The example in DSSE's own implementation notes.
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
    assert pae("", b"") == b"DSSEv1 0  0 "


def test_pae_counts_bytes_not_characters() -> None:
    assert pae("é", "é".encode()) == b"DSSEv1 2 \xc3\xa9 2 \xc3\xa9"
    assert pae("a", b"\x00 1 \xff") == b"DSSEv1 1 a 5 \x00 1 \xff"


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_step_8_one_signature_is_for_all_of_a_batch(size: int) -> None:
    proofs = sign_batch(LEAVES[:size], MESSAGE_TYPE, KEY)
    assert len({proof.signature for proof in proofs}) == 1
    for index, proof in enumerate(proofs):
        assert (proof.size, proof.index) == (size, index)
        verify_proof(proof, LEAVES[index], MESSAGE_TYPE, KEY.public, VerifiedRoots())


def test_what_is_signed() -> None:
    """Exactly section 4: the PAE of the type over the root and the size as u32."""
    alone = sign_batch(LEAVES[:1], MESSAGE_TYPE, KEY)[0]
    start = b"DSSEv1 34 application/vnd.sealbus.message.v1 36 "
    KEY.public.verify(start + LEAVES[0] + b"\x00\x00\x00\x01", alone.signature)
    many = sign_batch(LEAVES, CONTEXT_TYPE, KEY)[0]
    start = b"DSSEv1 34 application/vnd.sealbus.context.v1 36 "
    KEY.public.verify(start + root(LEAVES) + b"\x00\x00\x00\x05", many.signature)


def test_a_batch_holds_1_to_4096() -> None:
    leaves = [leaf_hash(number.to_bytes(2, "big")) for number in range(4097)]
    with pytest.raises(SealError, match="batch"):
        sign_batch([], MESSAGE_TYPE, KEY)
    with pytest.raises(SealError, match="batch"):
        sign_batch(leaves, MESSAGE_TYPE, KEY)
    proofs = sign_batch(leaves[:4096], MESSAGE_TYPE, KEY)
    assert len(proofs[4095].path) == 12
    verify_proof(proofs[4095], leaves[4095], MESSAGE_TYPE, KEY.public, VerifiedRoots())


def test_step_8_nothing_can_be_changed() -> None:
    proofs = sign_batch(LEAVES, MESSAGE_TYPE, KEY)
    good = proofs[0]
    verify_proof(good, LEAVES[0], MESSAGE_TYPE, KEY.public, VerifiedRoots())
    refused(good, leaf=LEAVES[1])
    refused(good, payload_type=CONTEXT_TYPE)
    refused(good._replace(index=1))
    refused(good._replace(size=6))
    refused(good._replace(size=8))  # the same path would do for eight leaves: the size is signed
    refused(good._replace(path=good.path[:-1]))
    refused(good._replace(path=(*good.path, LEAVES[0])))
    refused(good._replace(path=(LEAVES[2], *good.path[1:])))
    refused(good._replace(signature=signing_key("other").sign(b"x")))
    refused(good._replace(signature=bytes(64)))
    with pytest.raises(EnvelopeError):
        verify_proof(good, LEAVES[0], MESSAGE_TYPE, signing_key("other").public, VerifiedRoots())


def test_step_8_size_alone_is_signed() -> None:
    """For leaf 0 of 5 and of 8, a path of three nodes is used alike; only the signed size tells them apart."""
    top_of_eight = sign_batch([*LEAVES, *LEAVES[:3]], MESSAGE_TYPE, KEY)[0]
    verify_proof(top_of_eight, LEAVES[0], MESSAGE_TYPE, KEY.public, VerifiedRoots())
    for size in (5, 6, 7):
        refused(top_of_eight._replace(size=size))


def test_verified_roots_are_remembered() -> None:
    roots = VerifiedRoots()
    proofs = sign_batch(LEAVES, MESSAGE_TYPE, KEY)
    for proof, leaf in zip(proofs, LEAVES, strict=True):
        verify_proof(proof, leaf, MESSAGE_TYPE, KEY.public, roots)
    assert len(roots) == 1
    # What is remembered is believed: this is how we know that the signature was not verified again.
    forged = VerifiedRoots()
    unsigned = proofs[0]._replace(signature=bytes(64))
    forged.remember(MESSAGE_TYPE, KEY.public, root(LEAVES), 5, bytes(64))
    verify_proof(unsigned, LEAVES[0], MESSAGE_TYPE, KEY.public, forged)


def test_a_failure_is_not_remembered() -> None:
    roots = VerifiedRoots()
    bad = sign_batch(LEAVES, CONTEXT_TYPE, KEY)[0]
    refused(bad, roots=roots)
    assert len(roots) == 0
    refused(bad, roots=roots)


def test_a_remembered_root_vouches_for_nothing_else() -> None:
    roots = VerifiedRoots()
    proofs = sign_batch(LEAVES, MESSAGE_TYPE, KEY)
    verify_proof(proofs[0], LEAVES[0], MESSAGE_TYPE, KEY.public, roots)
    refused(proofs[0], leaf=LEAVES[1], roots=roots)
    refused(proofs[0], payload_type=CONTEXT_TYPE, roots=roots)
    refused(proofs[0]._replace(size=8), roots=roots)
    refused(proofs[0]._replace(path=(*proofs[0].path, LEAVES[0])), roots=roots)
    refused(proofs[0]._replace(signature=bytes(64)), roots=roots)
    with pytest.raises(EnvelopeError):
        verify_proof(proofs[0], LEAVES[0], MESSAGE_TYPE, signing_key("other").public, roots)
