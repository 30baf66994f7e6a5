"""The root file: strict, typed, and refused where it would trust nothing."""

from __future__ import annotations

import json

import pytest
from support.log_world import NOTARY, ORIGIN, LogKey, make_world, note
from vectors.issuing import EDGE, PRICING, Json

from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.export.trust_root import Root
from sealbus.envelopes.trust.spiffe_id import SpiffeId

WORLD = make_world(1, 12)
GOOD = WORLD.root()
HELD = WORLD.files()["checkpoint"]


def parsed(**changes: Json) -> Root:
    return Root.parse(json.dumps(GOOD | changes).encode())


def test_what_it_says() -> None:
    root = parsed(checkpoints=[HELD.decode()], agents={"template": "/ns/{name}", "table": {"pricing": PRICING}})
    assert (root.origin, root.names.template) == (ORIGIN, "/ns/{name}")
    assert [key.text for key in root.keys] == [key.vkey for key in WORLD.keys]
    assert root.bundles == frozenset(WORLD.pinned)
    assert root.notaries == {SpiffeId(NOTARY)}
    assert root.profile.minters == {SpiffeId(EDGE)}
    assert root.profile.names.token(SpiffeId(PRICING)) == "pricing"
    [held] = root.held
    assert held.checkpoint.size == len(WORLD.frames)


def test_it_is_written_as_it_is_read() -> None:
    root = parsed(checkpoints=[HELD.decode()], agents={"template": "/a/{name}", "table": {"pricing": PRICING}})
    assert Root.parse(root.encode()).encode() == root.encode()


@pytest.mark.parametrize(
    "changes",
    [
        {"v": 2},
        {"v": True},
        {"origin": 1},
        {"keys": []},
        {"keys": "none"},
        {"keys": [1]},
        {"keys": ["no key"]},
        {"keys": [WORLD.keys[0].vkey] * 2},
        {"bundles": []},
        {"bundles": ["00"]},
        {"bundles": ["AA" * 32]},
        {"bundles": ["zz"]},
        {"checkpoints": ["no note"]},
        {"checkpoints": [note(1, bytes(32), [LogKey("stranger")]).decode()]},
        {"trust_domain": "Example.org"},
        {"agents": {}},
        {"agents": []},
        {"agents": {"template": "/{name}", "table": []}},
        {"agents": {"template": "/none", "table": {}}},
        {"agents": {"template": "/{name}", "table": {"x": "no id"}}},
        {"agents": {"template": "/{name}", "table": {"x": 1}}},
        {"minters": ["no id"]},
        {"minters": {}},
        {"notaries": []},
        {"more": 1},
    ],
)
def test_what_it_may_not_say(changes: dict[str, Json]) -> None:
    with pytest.raises(ConfigurationError):
        parsed(**changes)


def test_one_that_is_too_large() -> None:
    with pytest.raises(ConfigurationError, match="over 1048576 bytes"):
        Root.parse(json.dumps(GOOD).encode() + b" " * 1_048_576)


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"v":1,"v":1}', b"\xff", b"[" * 100_000])
def test_what_is_no_root_file(data: bytes) -> None:
    with pytest.raises(ConfigurationError, match="root file"):
        Root.parse(data)
