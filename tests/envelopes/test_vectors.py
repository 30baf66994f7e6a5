"""Every vector says what the library says, and the script that made them makes the same bytes again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from support.vectors import FOLDER, Given, load, octets, run
from vectors.make import build

from sealbus.envelopes.encoding.codec import Value, decode, encode
from sealbus.envelopes.errors import Code, EnvelopeError
from sealbus.envelopes.message.chain import covers
from sealbus.envelopes.message.header import is_uuid7
from sealbus.envelopes.records.record import guard_id
from sealbus.envelopes.trust.caches import Caches
from sealbus.envelopes.trust.keys import PublicKey
from sealbus.envelopes.trust.merkle import leaf_hash, path, root, verify_path
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.signature import pae
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

ACCEPT = [case for name in ("live", "result", "archive") for case in load(f"accept_{name}.json")]
REJECT = [case for name in ("live", "result", "archive") for case in load(f"reject_{name}.json")]


def named(case: Given) -> str:
    return f"{case['profile']}: {case['name']}"


def outcome(case: Given, caches: Caches) -> tuple[object, object] | Given:
    """Return what was found, or code and step of the refusal."""
    try:
        return run(case, caches)
    except EnvelopeError as error:
        return error.code, error.step


@pytest.mark.parametrize("case", ACCEPT, ids=named)
def test_accepted(case: Given) -> None:
    expect = dict(case["expect"])
    if "body" in expect:
        expect["body"] = octets(expect["body"])
    assert run(case) == expect


@pytest.mark.parametrize("case", REJECT, ids=named)
def test_refused(case: Given) -> None:
    with pytest.raises(EnvelopeError) as caught:
        run(case)
    assert (caught.value.code, caught.value.step) == (case["code"], case["step"]), caught.value.detail


def test_what_was_verified_before_changes_nothing() -> None:
    """One process sees all vectors, twice: caches may save work, and may not save a check."""
    caches = Caches()
    for case in (ACCEPT + REJECT) * 2:
        assert outcome(case, caches) == outcome(case, Caches()), named(case)


@pytest.mark.slow
def test_the_script_makes_the_same_vectors_again() -> None:
    made = build()
    assert sorted(made) == sorted(file.name for file in FOLDER.glob("*.json"))
    for name, text in made.items():
        assert text == (FOLDER / name).read_text(encoding="utf-8"), f"{name}: cd tests && python -m vectors.make"


def test_every_code_that_bytes_can_cause_is_refused_somewhere() -> None:
    seen = {(case["code"], case["step"]) for case in REJECT}
    by_bytes = {
        Code.MALFORMED: {1, 2, 6, 11},
        Code.TOO_LARGE: {1},
        Code.UNSUPPORTED_FORMAT: {1},
        Code.CHAIN_TOO_LONG: {1, 11},
        Code.WRONG_KIND: {3},
        Code.WRONG_SUBJECT: {3},
        Code.WRONG_AUDIENCE: {4},
        Code.UNEXPECTED_REPLY: {4},
        Code.NOT_YET_VALID: {5},
        Code.EXPIRED: {5},
        Code.REPLAYED: {6},
        Code.OVERLOADED: {6},
        Code.BAD_CREDENTIAL: {7, 10, 11},
        Code.UNKNOWN_TRUST_DOMAIN: {7, 11},
        Code.UNKNOWN_KEY: {7, 10, 11},
        Code.CREDENTIAL_EXPIRED: {7, 10, 11},
        Code.REVOKED: {7, 10, 11},
        Code.BAD_SIGNATURE: {8, 10, 11},
        Code.BAD_DIGEST: {9},
        Code.BAD_CONTEXT: {10},
        Code.CONTEXT_ISSUER_REFUSED: {10},
        Code.BAD_CHAIN: {11},
        Code.GRANT_EXCEEDED: {12},
    }
    assert seen == {(code, step) for code, steps in by_bytes.items() for step in steps}


def test_names_of_cases_are_unique() -> None:
    names = [named(case) for case in ACCEPT + REJECT]
    assert len(names) == len(set(names))


def untagged(value: Any) -> Value:  # JSON
    if isinstance(value, list):
        return [untagged(item) for item in value]
    if isinstance(value, Mapping):
        if "hex" in value:
            return bytes.fromhex(value["hex"])
        return {key: untagged(item) for key, item in value["map"]}
    assert isinstance(value, bool | int | str)
    return value


def test_codec() -> None:
    vectors = load("codec.json")
    for one in vectors["accept"]:
        data, value = bytes.fromhex(one["hex"]), untagged(one["value"])
        assert encode(value) == data
        assert decode(data) == value
    for one in vectors["reject"]:
        with pytest.raises(EnvelopeError) as caught:
            decode(bytes.fromhex(one["hex"]))
        assert caught.value.code == one["code"], one["name"]


def test_spiffe_ids_tokens_and_grants() -> None:
    vectors, settings = load("names.json"), load("world.json")["defaults"]["live"]
    for text in vectors["spiffe_ids"]["accept"]:
        assert SpiffeId(text).value == text
    for text in vectors["spiffe_ids"]["reject"]:
        with pytest.raises(EnvelopeError):
            SpiffeId(text)
    table = {name: SpiffeId(iss) for name, iss in settings["table"].items()}
    names = Names(TrustDomain(settings["trust_domain"]), settings["template"], table)
    for one in vectors["tokens"]:
        assert names.token(SpiffeId(one["id"])) == one["token"]
        assert names.name_of(SpiffeId(one["id"])) == one.get("name")
    for one in vectors["grants"]:
        assert covers(one["grants"], one["action"]) is one["covers"], one


def test_trees_encodings_thumbprints_and_ids() -> None:
    vectors = load("crypto.json")
    for tree in vectors["trees"]:
        leaves = [leaf_hash(bytes.fromhex(one)) for one in tree["data"]]
        top = bytes.fromhex(tree["root"])
        assert root(leaves) == top
        for index, hexed in enumerate(tree["paths"]):
            nodes = tuple(bytes.fromhex(node) for node in hexed)
            assert path(leaves, index) == nodes
            verify_path(leaves[index], len(leaves), index, nodes, top)
    for one in vectors["pae"]:
        assert pae(one["type"], bytes.fromhex(one["body"])).hex() == one["pae"]
    for one in vectors["thumbprints"]:
        assert PublicKey(bytes.fromhex(one["key"])).thumbprint == one["urn"]
    for one in vectors["guard_ids"]:
        assert guard_id(SpiffeId(one["own"]), bytes.fromhex(one["call"])).hex() == one["id"]
    assert all(is_uuid7(bytes.fromhex(one)) for one in vectors["uuidv7"]["accept"])
    assert not any(is_uuid7(bytes.fromhex(one)) for one in vectors["uuidv7"]["reject"])
