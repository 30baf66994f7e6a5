"""The vectors below the envelope, by the independent reader: encoding, names and tokens, grants, trees, hashes."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from independent import verify_export as independent
from independent.control_bodies import covers
from support.vectors import Given, load

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
