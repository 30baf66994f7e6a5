"""Descriptions of objects: those of the object store are understood, everything else is nothing."""

from __future__ import annotations

import json

import pytest

from sealbus.bus.streams.object_store import ObjectInfo, digest_of, parse_info

GOOD = {"name": "stock", "bucket": "policies", "nuid": "Ab1", "size": 3, "chunks": 1, "digest": digest_of(b"abc")}


def test_a_description() -> None:
    found = parse_info(json.dumps(GOOD | {"mtime": "2026-11-24T00:00:00Z"}).encode(), sequence=7)
    assert found == ObjectInfo(name="stock", nuid="Ab1", size=3, chunks=1, digest=digest_of(b"abc"), sequence=7)
    assert digest_of(b"abc") == "SHA-256=ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0="


def test_a_deleted_object() -> None:
    found = parse_info(json.dumps({"name": "stock", "deleted": True}).encode(), sequence=8)
    assert found is not None
    assert found.deleted


@pytest.mark.parametrize(
    "changes",
    [
        {"name": ""}, {"name": 1}, {"name": "x" * 161}, {"nuid": "a.b"}, {"nuid": ""}, {"nuid": 1}, {"nuid": ">"},
        {"size": -1}, {"size": True}, {"chunks": "1"}, {"digest": None}, {"deleted": "yes"}, {"more": "x" * 20_000},
    ],
)  # fmt: skip
def test_what_is_none(changes: dict[str, object]) -> None:
    assert parse_info(json.dumps(GOOD | changes).encode(), sequence=1) is None


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b"\xff", b"[" * 10_000])
def test_junk(payload: bytes) -> None:
    assert parse_info(payload, sequence=1) is None
