"""The vectors of messages and of what they are made of, by the independent reader."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from independent import verify_export as independent
from independent.acceptance import Accepted, Core, Lifetimes, Live, Refused, Requester, Stream, accept_live
from independent.control_bodies import covers
from independent.stored_values import World
from support.vectors import Given, load, octets

GIVEN = load("world.json")["defaults"]["live"]
ROOT = independent.Root(
    origin="log", keys=(), bundles=frozenset(), checkpoints=(), trust_domain=GIVEN["trust_domain"],
    template=GIVEN["template"], table=GIVEN["table"], minters=frozenset(), notaries=frozenset(),
)  # fmt: skip


def tagged(value: Any) -> Any:
    """Return a value as the vectors write it."""
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if isinstance(value, list):
        return [tagged(one) for one in value]
    if isinstance(value, dict):
        return {"map": [[key, tagged(one)] for key, one in value.items()]}
    return value


@pytest.mark.parametrize("case", load("codec.json")["accept"], ids=lambda case: case["hex"][:24])
def test_values(case: Given) -> None:
    assert tagged(independent.decode(bytes.fromhex(case["hex"]))) == case["value"]


@pytest.mark.parametrize("case", load("codec.json")["reject"], ids=lambda case: case["name"])
def test_what_is_no_value(case: Given) -> None:
    with pytest.raises(independent.Bad):
        independent.decode(bytes.fromhex(case["hex"]))


def test_names_tokens_and_grants() -> None:
    names = load("names.json")
    assert all(map(independent.is_spiffe, names["spiffe_ids"]["accept"]))
    assert not any(map(independent.is_spiffe, names["spiffe_ids"]["reject"]))
    assert [ROOT.token(case["id"]) for case in names["tokens"]] == [case["token"] for case in names["tokens"]]
    for case in names["grants"]:
        assert covers(case["grants"], case["action"]) is case["covers"], case


def test_trees_and_hashes() -> None:
    crypto = load("crypto.json")
    for tree in crypto["trees"]:
        leaves = [independent.leaf_of(bytes.fromhex(data)) for data in tree["data"]]
        assert independent.tree_root(leaves).hex() == tree["root"]
        for index, path in enumerate(tree["paths"]):
            nodes = [bytes.fromhex(node) for node in path]
            assert independent.root_by_path(leaves[index], len(leaves), index, nodes).hex() == tree["root"]
    for case in crypto["pae"]:
        kind, body = case["type"].encode(), bytes.fromhex(case["body"])
        assert b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(body), body) == bytes.fromhex(case["pae"])
    for case in crypto["thumbprints"]:
        x, y = (base64.urlsafe_b64encode(bytes.fromhex(half)).rstrip(b"=").decode() for half in halves(case["key"]))
        jwk = f'{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}'.encode()
        thumbprint = base64.urlsafe_b64encode(independent.H(jwk)).rstrip(b"=").decode()
        assert case["urn"] == f"urn:ietf:params:oauth:jwk-thumbprint:sha-256:{thumbprint}"
    for case in crypto["guard_ids"]:
        guard = independent.H(b"decision" + case["own"].encode() + bytes.fromhex(case["call"]))[:16]
        assert guard.hex() == case["id"]


def halves(key: str) -> tuple[str, str]:
    return key[:64], key[64:]


def world_of(given: Given) -> World:
    bundles = independent.Bundles()
    for domain, jwks in load("world.json")["bundles"][given["bundles"]].items():
        bundles.add(domain, 0, independent.read_bundle(jwks.encode()))
    return World(root=ROOT, bundles=bundles, revoked_before=given["revoked_before"])


def run_live(given: Given, payload: bytes) -> Given:
    profile = Live(
        own=given["own"], world=world_of(given), kinds=given["kinds"], action=given["action"],
        minters=given["minters"], lifetimes=Lifetimes(**given["lifetimes"]), formats=given["formats"],
        own_subjects=given["own_subjects"], restored=given["restored"],
    )  # fmt: skip
    place: Stream | Core
    if given["stream"] is not None:
        block = bytes.fromhex(given["stream"]["header_block"])
        place = Stream(**given["stream"] | {"header_block": block})
    else:
        seen = [(one["iss"], bytes.fromhex(one["id"]), one["exp"]) for one in given["core"]["seen"]]
        place = Core(**given["core"] | {"seen": seen})
    found = accept_live(payload, place, profile, given["now"])
    expect = told(found) | {"chain": [one.hex() for one in found.chain]}
    return expect | ({"context": found.header["ctx"].hex()} if "ctx" in found.header else {})


def run_result(given: Given, payload: bytes) -> Given:
    requester = Requester(own=given["own"], world=world_of(given), formats=given["formats"])
    for one in given["requests"]:
        digest, ident = bytes.fromhex(one["digest"]), bytes.fromhex(one["id"])
        requester.ask(digest, ident, one["aud"], one["end"], one.get("rpl"))
    found = None
    for one in [*map(octets, given["before"]), payload]:
        found = requester.take(one, given["subject"], now=given.get("now"), stored=given.get("stored"))
    if found is None:
        return {"ignored": True}
    return told(found) | {"final": found.header["t"] == "reply" or "fin" in found.header}


def told(found: Accepted) -> Given:
    return {
        "kind": found.header["t"], "iss": found.header["iss"], "digest": found.digest.hex(), "body": found.body,
    }  # fmt: skip


def run(case: Given) -> Given:
    given = load("world.json")["defaults"][case["profile"]] | case.get("given", {})
    return {"live": run_live, "result": run_result}[case["profile"]](given, octets(case["payload"]))


def cases(which: str) -> list[Given]:
    return [case for profile in ("live", "result") for case in load(f"{which}_{profile}.json")]


def named(case: Given) -> str:
    return f"{case['profile']}: {case['name']}"


@pytest.mark.parametrize("case", cases("accept"), ids=named)
def test_accepted_messages(case: Given) -> None:
    expect = dict(case["expect"])
    if "body" in expect:
        expect["body"] = octets(expect["body"])
    assert run(case) == expect


@pytest.mark.parametrize("case", cases("reject"), ids=named)
def test_refused_messages(case: Given) -> None:
    with pytest.raises(Refused) as caught:
        run(case)
    assert (caught.value.code, caught.value.step) == (case["code"], case["step"]), caught.value
