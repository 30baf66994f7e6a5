"""The vectors of results in parts: we and the independent reader take the same parts, and refuse the same results."""

from __future__ import annotations

import pytest
from independent import parts as independent
from independent.verify_export import Bad
from support.vectors import Given, load, octets

from sealbus.bus.sending.parts import GatheredParts, PartsTally
from sealbus.bus.sending.status import parse
from sealbus.envelopes.errors import BadBody, HandlingError

VECTORS = load("parts.json")


def gathered(case: Given) -> list[bytes]:
    parts = GatheredParts()
    for one in case["statuses"]:
        status = parse(octets(one["body"]), one["typ"], fin=one["fin"], sequence=one["seq"], number=one.get("prt"))
        parts.take(status)
    return [content.body for content in parts.contents]


def theirs(case: Given) -> list[bytes]:
    return independent.read_parts({**one, "body": octets(one["body"])} for one in case["statuses"])


@pytest.mark.parametrize("case", VECTORS["accept"], ids=lambda case: case["name"])
def test_accepted(case: Given) -> None:
    assert gathered(case) == theirs(case) == [octets(body) for body in case["expect"]]


@pytest.mark.parametrize("case", VECTORS["reject"], ids=lambda case: case["name"])
def test_refused(case: Given) -> None:
    with pytest.raises((BadBody, HandlingError)) as ours:
        gathered(case)
    with pytest.raises(Bad) as independents:
        theirs(case)
    assert (ours.value.code, independents.value.code) == (case["code"], case["code"])


@pytest.mark.parametrize("case", VECTORS["accept"], ids=lambda case: case["name"])
def test_what_we_write_stands_for_the_parts(case: Given) -> None:
    """The last status of each case is what a consumer that gave these parts writes."""
    tally = PartsTally()
    for part in gathered(case):
        tally.add(parse(part, "text/plain", fin=True, sequence=0).result)  # type: ignore[arg-type]
    final = case["statuses"][-1]
    assert tally.result() == (octets(final["body"]), final["typ"])
