"""Writes input documents with nothing of sealbus, written from envelopes/SPEC.md section 7, "The input document"."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from time import gmtime, strftime
from typing import Any

from independent.verify_export import SECOND, TOP, Bad, domain_of, need, strict_json

__all__ = ["check_document", "input_document"]


def input_document(
    chain: Sequence[Mapping[str, Any]],
    context: Mapping[str, Any] | None,
    *,
    action: str,
    properties: Mapping[str, Any],
    resource: Mapping[str, Any] | None,
    time: int,
    delivery: int | None,
    approvals: Sequence[Mapping[str, Any]],
    parked: Mapping[str, Any] | None,
) -> bytes:
    """The question about the last message of `chain`, of which these are the headers, the root's first."""
    header = chain[-1]
    said = resource or {"type": "none", "id": "none", "properties": {}}
    grants = [one["grt"] for one in reversed(chain[:-1]) if "grt" in one]
    document = {
        "v": 1,
        "subject": {
            "type": "workload",
            "id": header["iss"],
            "properties": {"trust_domain": domain_of(header["iss"]), **declared_by(header)},
        },
        "action": {"name": action, "properties": in_order(properties)},
        "resource": {"type": said["type"], "id": said["id"], "properties": in_order(said["properties"])},
        "context": {
            "time": strftime("%Y-%m-%dT%H:%M:%SZ", gmtime(time // SECOND)),
            "subject": header["to"],
            "kind": header["t"],
            "message_id": header["id"].hex(),
            "tenant": (context or {}).get("ten", ""),
            "delivery": 1 if delivery is None else delivery,
            "user": user_of(context),
            "chain": [one["iss"] for one in chain],
            "grant": {"limited": bool(grants), "actions": grants[0] if grants else []},
            "approvals": list(approvals),
            "parked": parked or {"since": "", "revision": ""},
        },
    }
    data = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    need(len(data) <= 65_536, "policy_error", "size")
    return data


def declared_by(header: Mapping[str, Any]) -> dict[str, str]:
    marks, found = header.get("ext", {}), {}
    if isinstance(model := marks.get("_mdl"), str) and model:
        found["model"] = model
    for name, mark in (("prompt", "_prm"), ("tools", "_tls")):
        if isinstance(digest := marks.get(mark), bytes) and len(digest) == 32:
            found[name] = digest.hex()
    return found


def in_order(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {name: properties[name] for name in sorted(properties)}


def user_of(context: Mapping[str, Any] | None) -> dict[str, Any]:
    known = context or {}
    return {
        "present": context is not None,
        "id": known.get("sub", ""),
        "idp": known.get("idp", ""),
        "session": known.get("sid", ""),
        "txn": known.get("txn", b"").hex(),
        "client": known.get("cid", ""),
        "scope": known.get("scp", []),
        "claims": in_order(known.get("clm", {})),
        "acr": known.get("acr", ""),
        "auth_time": known.get("aut", 0) // SECOND,
        "type": known.get("typ", "user") if context is not None else "",
        "domain": known.get("dom", ""),
    }


def check_document(data: bytes) -> dict[str, Any]:
    """What an engine may be given: every engine reads the same in it."""
    need(len(data) <= 65_536, "policy_error", "size")
    document = strict_json(data, 32)
    check_value(document)
    # 0 with a minus is the same number to Python.
    bare = re.sub(rb'"[^"\\]*(?:\\.[^"\\]*)*"', b'""', data)
    need(not re.search(rb"-0(?![0-9])", bare), "policy_error", "0 with a minus")
    return document


def check_value(value: Any) -> None:
    match value:
        case bool() | None:
            return
        case str():
            need(not re.search("[\ud800-\udfff]", value), "policy_error", "half a character")
        case int():
            need(abs(value) <= TOP, "policy_error", "a number that is too large")
        case dict():
            for name, one in value.items():
                check_value(name)
                check_value(one)
        case list():
            for one in value:
                check_value(one)
        case _:
            raise Bad("policy_error", "a number with a fraction")
