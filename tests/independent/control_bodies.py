"""Reads the bodies of control messages with nothing of sealbus, written from envelopes/SPEC.md section 7 alone."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from typing import Any

from independent.cron_times import read_cron
from independent.verify_export import GRANT, Bad, is_plain, is_uint, need, strict_json

__all__ = ["covers", "read_approval", "read_cancel", "read_schedule"]

HASH = re.compile("[0-9a-f]{64}")
NAME = re.compile("[A-Za-z0-9_-]{1,64}")


def is_grant(value: Any) -> bool:
    return type(value) is str and bool(GRANT.fullmatch(value)) and len(value) <= 256


def covers(grants: Sequence[str], action: str) -> bool:
    """Section 3, "Grants": control actions are actions as any other."""
    return any(action.startswith(one[:-1]) if one.endswith(".*") else action == one for one in grants)


def is_action(value: Any) -> bool:
    return is_grant(value) and not value.endswith("*")


def is_from(value: Any, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most


def read_object(body: bytes, typ: str, wanted: str, most: int, depth: int) -> dict[str, Any]:
    need(typ == f"application/vnd.sealbus.{wanted}.v1+json", "bad_body", "type")
    need(len(body) <= most, "bad_body", "size")
    said = strict_json(body, depth)
    need(is_from(said.get("v"), 1, 1), "bad_body", "v")
    del said["v"]
    return said


def read_cancel(body: bytes, typ: str) -> dict[str, Any]:
    said = read_object(body, typ, "cancel", 4096, 1)
    need(set(said) == {"task", "action", "end", "role", "reason"}, "bad_body", "members")
    need(type(said["task"]) is str and HASH.fullmatch(said["task"]), "bad_body", "task")
    need(is_action(said["action"]), "bad_body", "action")
    need(is_uint(said["end"]), "bad_body", "end")
    need(said["role"] in ("requester", "operator"), "bad_body", "role")
    need(is_plain(said["reason"]), "bad_body", "reason")
    return said


def read_approval(body: bytes, typ: str) -> dict[str, Any]:
    said = read_object(body, typ, "approval", 4096, 1)
    need(set(said) == {"decision", "verdict", "note"}, "bad_body", "members")
    need(type(said["decision"]) is str and HASH.fullmatch(said["decision"]), "bad_body", "decision")
    need(said["verdict"] in ("approve", "deny", "withdraw"), "bad_body", "verdict")
    need(is_plain(said["note"]), "bad_body", "note")
    return said


def read_schedule(body: bytes, typ: str) -> dict[str, Any]:
    said = read_object(body, typ, "schedule", 65_536, 3)
    need(type(said.get("name")) is str and NAME.fullmatch(said["name"]), "bad_body", "name")
    if set(said) == {"name", "state"}:
        need(said["state"] in ("on", "paused", "removed"), "bad_body", "state")
        return said
    need(set(said) == {"name", "state", "do", "when", "overlap", "catchup", "until"}, "bad_body", "members")
    need(said["state"] == "on", "bad_body", "state")
    need(said["overlap"] in ("skip", "queue"), "bad_body", "overlap")
    need(is_from(said["catchup"], 0, 86_400), "bad_body", "catchup")
    need(is_uint(said["until"]), "bad_body", "until")
    check_when(said["when"])
    return {**said, "do": read_do(said["do"])}


def read_do(do: Any) -> dict[str, Any]:
    need(type(do) is dict, "bad_body", "do")
    always = {"action", "typ", "partition", "grants", "life"}
    need(set(do) in (always | {"text"}, always | {"base64"}), "bad_body", "members of do")
    need(is_action(do["action"]) and "._" not in do["action"], "bad_body", "action")
    need(is_plain(do["typ"]), "bad_body", "typ")
    need(do["partition"] is None or is_plain(do["partition"]), "bad_body", "partition")
    grants, life = do["grants"], do["life"]
    need(
        grants is None or (type(grants) is list and len(grants) <= 32 and all(map(is_grant, grants))),
        "bad_body",
        "grants",
    )
    need(life is None or is_from(life, 1, 86_400), "bad_body", "life")
    [(form, text)] = [(form, do[form]) for form in ("text", "base64") if form in do]
    need(type(text) is str, "bad_body", form)
    try:
        body = text.encode() if form == "text" else base64.b64decode(text, validate=True)
    except ValueError as error:
        raise Bad("bad_body", form) from error
    need(len(body) <= 49_152, "bad_body", form)
    need(form == "text" or base64.b64encode(body).decode() == text, "bad_body", "base64 is not canonical")
    return {**{key: do[key] for key in always}, "body": body}


def check_when(when: Any) -> None:
    need(type(when) is dict, "bad_body", "when")
    if set(when) == {"cron", "zone"}:
        need(all(type(one) is str for one in when.values()), "bad_body", "when")
        read_cron(when["cron"], when["zone"])
    elif set(when) == {"every", "from"}:
        need(is_from(when["every"], 10, 31_622_400) and is_uint(when["from"]), "bad_body", "when")
    else:
        need(set(when) == {"at"} and is_uint(when["at"]), "bad_body", "when")
