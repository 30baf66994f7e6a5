"""Reads a result in parts with nothing of sealbus, written from envelopes/SPEC.md section 7, "Results in parts"."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from independent.verify_export import H, need

__all__ = ["read_parts"]

STATUS, PARTS = (f"application/vnd.sealbus.{kind}.v1+json" for kind in ("status", "parts"))


def read_parts(statuses: Iterable[Mapping[str, Any]]) -> list[bytes]:
    """The bodies that are the result, once the statuses have told it; each has `seq`, `fin`, `typ`, `body`, and a `prt`."""
    delivery, bodies = -1, list[bytes]()
    for status in statuses:
        typ, body = status["typ"], status["body"]
        if status["fin"]:
            if typ == PARTS:
                digest = H(b"".join(map(H, bodies))).hex()
                said = b'{"v":1,"parts":%d,"hash":"%b"}' % (len(bodies), digest.encode())
                need(body == said, "bad_result", "other parts than were taken")
            continue
        if typ == STATUS:
            continue
        number = status.get("prt")
        need(type(number) is int and number >= 0, "bad_body", "no part")
        if status["seq"] // 65_536 > delivery:
            delivery, bodies = status["seq"] // 65_536, []
        need(status["seq"] // 65_536 == delivery and number == len(bodies), "bad_result", "a part is missing")
        bodies.append(body)
        need(len(body) <= 65_536 and len(bodies) <= 2_048, "bad_result", "too large or too many")
        need(sum(map(len, bodies)) <= 16_777_216, "bad_result", "too much")
    return bodies
