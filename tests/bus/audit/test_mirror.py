"""The mirror of AUDIT as it is declared, planned and described."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

import pytest

from sealbus.bus.audit.mirror import MirrorPlan, describe_mirror, mirrored_since
from sealbus.bus.nats.api import MirrorState, StreamState
from sealbus.bus.ports import Request
from sealbus.bus.streams.declared import Stream
from sealbus.bus.streams.plan import Create, Refuse, Update, plan
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError

PLAN = MirrorPlan(stream="AUDIT", domain="home", deliver="mirror", max_bytes=1_000, replicas=3)
NAME = "AUDIT_MIRROR"


def server(existing: Mapping[str, object] | None, source: object) -> tuple[list[str], Request]:
    """Return what was asked, and a JetStream API with this mirror and this answer of the other region."""
    asked: list[str] = []

    async def request(subject: str, payload: bytes) -> bytes:
        asked.append(subject)
        if subject == "$JS.API.STREAM.LIST":
            streams = [existing] if existing is not None else []
            return json.dumps({"streams": streams, "total": len(streams)}).encode()
        return json.dumps(source).encode()

    return asked, request


def listed(config: Mapping[str, object]) -> dict[str, object]:
    state = {"messages": 0, "bytes": 0}
    return {"config": {"name": NAME, **config}, "created": "2026-12-02T00:00:00Z", "state": state}


async def declared() -> Stream:
    _, request = server(None, {"created": "1970-01-01T00:00:01.5Z"})
    return await PLAN.declared(request)


async def test_it_has_no_subjects_and_says_when_its_stream_was_created() -> None:
    config = (await declared()).config()
    assert config["mirror"] == {"name": "AUDIT", "external": {"api": "$JS.home.API", "deliver": "mirror"}}
    assert config["metadata"] == {"sealbus-created": "1500000"}
    assert not config.keys() & {"subjects", "duplicate_window"}
    assert (config["max_age"], config["deny_delete"], config["deny_purge"], config["num_replicas"]) == (
        0,
        True,
        True,
        3,
    )


async def test_a_mirror_that_is_there_needs_no_word_from_the_other_region() -> None:
    asked, request = server(listed({"metadata": {"sealbus-created": "7"}}), {})
    assert (await PLAN.declared(request)).metadata == {"sealbus-created": "7"}
    assert asked == ["$JS.API.STREAM.LIST"]


@pytest.mark.parametrize(
    ("answer", "error"),
    [({"error": {"err_code": 10_059}}, ConfigurationError), ({"created": "yesterday"}, BusUnavailable)],
)
async def test_without_a_stream_in_the_other_region_there_is_none(answer: object, error: type[Exception]) -> None:
    _, request = server(None, answer)
    with pytest.raises(error):
        await PLAN.declared(request)


async def test_it_is_planned_as_other_streams_are() -> None:
    stream = await declared()
    [create] = plan([stream], {NAME: None})
    assert isinstance(create, Create)
    assert str(create) == "create AUDIT_MIRROR: mirror of AUDIT, 1000 bytes"
    found = {**stream.config(), "metadata": {"sealbus-created": "1500000", "_nats.ver": "2.15.1"}, "sealed": False}
    state = StreamState(name=NAME, config=found, created=0, messages=0, bytes=0)
    assert plan([stream], {NAME: state}) == []
    [update] = plan([stream], {NAME: replace(state, config={**found, "deny_delete": False})})
    assert isinstance(update, Update)
    for other in ({"name": "TASKS"}, None):
        [refuse] = plan([stream], {NAME: replace(state, config={**found, "mirror": other})})
        assert isinstance(refuse, Refuse)
        assert refuse.field == "mirror"


def mirror(config: Mapping[str, object], state: MirrorState | None = None) -> StreamState:
    return StreamState(name=NAME, config=config, created=0, messages=0, bytes=0, last=7, mirror=state)


@pytest.mark.parametrize("metadata", [None, {}, {"sealbus-created": ""}, {"sealbus-created": "-1"}])
def test_what_does_not_say_when_its_stream_was_created_is_no_mirror_of_ours(metadata: object) -> None:
    with pytest.raises(ConfigurationError, match="no mirror of"):
        mirrored_since(mirror({"metadata": metadata}))


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (None, "has #7; nothing has come from the other region"),
        (MirrorState(lag=0, silent=None), "has #7; nothing has come from the other region"),
        (MirrorState(lag=0, silent=1_500_000), "last heard 1.5 s ago: it was not behind then"),
        (MirrorState(lag=3, silent=1_500_000), "last heard 1.5 s ago: 3 messages behind"),
    ],
)
def test_how_far_it_has_come_is_said(state: MirrorState | None, words: str) -> None:
    assert words in describe_mirror(mirror({}, state))
