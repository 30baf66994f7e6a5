"""SPIFFE IDs and trust domains: canonical, or refused (SPEC.md section 1)."""

from __future__ import annotations

from typing import cast

import pytest

from sealbus.envelopes.errors import Code, EnvelopeError
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

VALID = [
    "spiffe://example.org/agent/planner",
    "spiffe://a/b",
    "spiffe://0._-/A.Z_a-z.0-9",
    "spiffe://example.org/...",
    "spiffe://example.org/.a/a./a..b/..a",
    "spiffe://" + "a" * 255 + "/x",
    "spiffe://a/" + "b" * (2048 - len("spiffe://a/")),
]


@pytest.mark.parametrize("text", VALID, ids=lambda text: text[:40])
def test_canonical_ids_are_taken_as_they_are(text: str) -> None:
    assert str(SpiffeId(text)) == text
    assert SpiffeId.parse(text) == SpiffeId(text)
    assert hash(SpiffeId.parse(text)) == hash(SpiffeId(text))
    assert SpiffeId.parse(text) is SpiffeId.parse(text)


INVALID = [
    "",
    "spiffe://",
    "spiffe://example.org",
    "spiffe://example.org/",
    "spiffe:///agent",
    "spiffe://example.org/agent/",
    "spiffe://example.org//agent",
    "spiffe://example.org/agent//planner",
    "spiffe://example.org/.",
    "spiffe://example.org/..",
    "spiffe://example.org/./agent",
    "spiffe://example.org/../agent",
    "spiffe://example.org/agent/.",
    "spiffe://example.org/agent/..",
    "spiffe://example.org/agent/../planner",
    "SPIFFE://example.org/agent",
    "Spiffe://example.org/agent",
    "spiffe://Example.org/agent",
    "spiffe://example.org:8443/agent",
    "spiffe://user@example.org/agent",
    "spiffe://example.org/agent?x=1",
    "spiffe://example.org/agent#x",
    "spiffe://example.org/ag%65nt",
    "spiffe://example.org/agent planner",
    "spiffe://example.org/agent\n",
    "\nspiffe://example.org/agent",
    " spiffe://example.org/agent",
    "spiffe://example.org/agent\x00",
    "spiffe://exämple.org/agent",
    "spiffe://example.org/ágent",
    "spiffe://example.org/agent\u0660",
    "https://example.org/agent",
    "spiffe:/example.org/agent",
    "spiffe://[::1]/agent",
    "spiffe://" + "a" * 256 + "/x",
    "spiffe://a/" + "b" * (2049 - len("spiffe://a/")),
]


@pytest.mark.parametrize("text", INVALID, ids=lambda text: repr(text[:40]))
def test_everything_else_is_malformed(text: str) -> None:
    for make in (SpiffeId, SpiffeId.parse):
        with pytest.raises(EnvelopeError) as caught:
            make(text)
        assert (caught.value.code, caught.value.step) == (Code.MALFORMED, 0)


def test_each_byte_is_judged_by_the_grammar() -> None:
    for number in range(256):
        character = chr(number)
        in_path = character.isascii() and (character.isalnum() or character in "-_")
        in_domain = in_path and not character.isupper()
        for text, expected in (
            (f"spiffe://example.org/a{character}b", in_path or character in "./"),
            (f"spiffe://a{character}b/x", in_domain or character in "./"),
        ):
            if expected:
                assert SpiffeId(text).value == text
            else:
                with pytest.raises(EnvelopeError):
                    SpiffeId(text)


def test_only_text_is_an_id() -> None:
    with pytest.raises(EnvelopeError):
        SpiffeId(cast("str", b"spiffe://example.org/agent"))
    with pytest.raises(EnvelopeError):
        TrustDomain(cast("str", None))


def test_parts() -> None:
    spiffe_id = SpiffeId("spiffe://example.org/ns/shop/sa/pricing")
    assert spiffe_id.trust_domain == TrustDomain("example.org")
    assert spiffe_id.path == "/ns/shop/sa/pricing"
    assert TrustDomain("example.org").id("/ns/shop/sa/pricing") == spiffe_id
    for path in ("", "agent", ".evil/agent"):
        with pytest.raises(EnvelopeError):
            TrustDomain("example.org").id(path)


def test_ids_are_ordered_hashable_and_no_text() -> None:
    first, second = SpiffeId("spiffe://a/a"), SpiffeId("spiffe://a/b")
    assert first < second
    assert {first: 1}[SpiffeId("spiffe://a/a")] == 1
    assert cast("object", first) != "spiffe://a/a"
    assert cast("object", TrustDomain("a")) != "a"
    assert TrustDomain("a") < TrustDomain("b")


@pytest.mark.parametrize("name", ["a", "example.org", "0._-", "a" * 255])
def test_trust_domains(name: str) -> None:
    assert str(TrustDomain(name)) == name


@pytest.mark.parametrize("name", ["", "A", "a/b", "spiffe://a", "a:1", "a" * 256, "ä", "a\n", "a b", "%61"])
def test_other_trust_domains_are_malformed(name: str) -> None:
    with pytest.raises(EnvelopeError) as caught:
        TrustDomain(name)
    assert (caught.value.code, caught.value.step) == (Code.MALFORMED, 0)
