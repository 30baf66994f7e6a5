"""Evidence items: their tables, their names, and that a name leads to one thing."""

from __future__ import annotations

from hashlib import sha256

import pytest
from support.both_readers import parse_evidence

from sealbus.envelopes.encoding.codec import Value, decode, encode
from sealbus.envelopes.errors import Code, EnvelopeError
from sealbus.envelopes.records.body import (
    SignedBytes,
    ancestor_item,
    context_item,
    credential_item,
)
from sealbus.envelopes.trust.proof import Credential, Proof

PROOF = Proof(2, 1, (b"n" * 32,), b"s" * 64)
WIRE_PROOF: Value = [2, 1, [b"n" * 32], b"s" * 64]
CREDENTIAL = Credential(1, b"token")


def test_the_tables() -> None:
    assert decode(credential_item(CREDENTIAL)) == ["credential", 1, b"token"]
    assert decode(context_item(b"payload", PROOF)) == ["context", b"payload", WIRE_PROOF]
    assert decode(ancestor_item(b"header", PROOF)) == ["ancestor", b"header", WIRE_PROOF]


def test_items_are_found_by_hash() -> None:
    found = parse_evidence(
        [credential_item(CREDENTIAL), context_item(b"payload", PROOF), ancestor_item(b"header", PROOF)]
    )
    assert found.credentials == {sha256(b"token").digest(): CREDENTIAL}
    assert found.contexts == {sha256(b"payload").digest(): SignedBytes(b"payload", PROOF)}
    assert found.ancestors == {sha256(b"header").digest(): SignedBytes(b"header", PROOF)}


def test_one_name_in_two_sorts_is_two_names() -> None:
    found = parse_evidence([context_item(b"same", PROOF), ancestor_item(b"same", PROOF)])
    assert len(found.contexts) == len(found.ancestors) == 1


def test_a_name_leads_to_one_thing() -> None:
    other = PROOF._replace(signature=b"t" * 64)
    with pytest.raises(EnvelopeError, match="repeated"):
        parse_evidence([context_item(b"payload", PROOF), context_item(b"payload", other)])
    with pytest.raises(EnvelopeError, match="repeated"):
        parse_evidence([credential_item(CREDENTIAL), credential_item(CREDENTIAL)])


def test_the_largest_of_each_sort_pass() -> None:
    parse_evidence(
        [
            credential_item(Credential(1, b"t" * 4_096)),
            context_item(b"p" * 8_192, PROOF),
            ancestor_item(b"h" * 8_192, PROOF),
        ]
    )


@pytest.mark.parametrize(
    "item",
    [
        b"",
        b"\xc1",
        encode({}),
        encode([]),
        encode(["credential", 1]),
        encode(["credential", True, b"token"]),
        encode(["credential", 1, "token"]),
        encode(["credential", 1, b"token", 1]),
        encode(["context", "payload", WIRE_PROOF]),
        encode(["context", b"payload", []]),
        encode(["ancestor", b"header", 1]),
        encode(["witness", b"header", WIRE_PROOF]),
        encode([1, b"header", WIRE_PROOF]),
        *(encode([sort, 1, b"token"]) for sort in ("credentials", "credentia", "Credential")),
        *(encode([sort, b"signed", WIRE_PROOF]) for sort in ("contexts", "contex", "Context", "ancestors", "Ancestor")),
        credential_item(Credential(1, b"t" * 4_097)),
        context_item(b"p" * 8_193, PROOF),
        ancestor_item(b"h" * 8_193, PROOF),
    ],
)
def test_an_item_of_no_table_is_malformed(item: bytes) -> None:
    with pytest.raises(EnvelopeError) as caught:
        parse_evidence([item])
    assert (caught.value.code, caught.value.step) == (Code.MALFORMED, 0)
