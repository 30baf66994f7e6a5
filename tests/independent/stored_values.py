"""Reads what agents keep in STATE and HELD with nothing of sealbus, written from envelopes/SPEC.md section 7 alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from independent.verify_export import (
    GRANT,
    SECOND,
    Bad,
    Bundles,
    H,
    Root,
    check_credential,
    check_key,
    check_proof,
    decode,
    is_bytes,
    is_spiffe,
    is_text,
    is_uint,
    need,
    read_token,
)

__all__ = [
    "World",
    "effect_key",
    "following_attempt",
    "read_attempts",
    "read_claim",
    "read_failed",
    "read_floor",
    "read_last_tick",
    "read_stop",
    "read_tick",
    "read_uses",
    "tick_names",
]


@dataclass(frozen=True)
class World:
    """Whose names and bundles count, and whose credentials are revoked."""

    root: Root
    bundles: Bundles
    revoked_before: Mapping[str, int] = field(default_factory=dict)


def array_of(value: bytes, most: int, *counts: int) -> list[bytes]:
    need(len(value) <= most, "malformed", "size")
    parts = decode(value)
    need(type(parts) is list and len(parts) in counts, "malformed", "array")
    need(all(type(part) is bytes for part in parts), "malformed", "parts")
    return parts  # type: ignore[no-any-return]


def check_signed(parts: list[bytes], kind: str, own: str, at: int, world: World) -> None:
    """`own` signed the payload under this type, with a credential that was valid at `at`."""
    payload, signature, key, token = parts
    need(len(signature) == 64 and len(key) == 64, "bad_signature", "sizes")
    check_key(key)
    check_credential((1, token), {"iss": own, "key": key, "crd": H(token)}, at, world.bundles, at)
    need(read_token(token, key)[3] * SECOND >= world.revoked_before.get(own, 0), "revoked")
    check_proof([1, 0, [], signature], payload, f"application/vnd.sealbus.{kind}.v1".encode(), key)


def check_time(at: Any, stored: int) -> None:
    need(is_uint(at), "malformed", "at")
    need(at - 5 * SECOND <= stored <= at + 60 * SECOND, "replayed", "not stored when it was made")


def keys_of(payload: bytes, text: int, items: int = 32) -> dict[str, Any]:
    keys = decode(payload, items=items, text=text)
    need(type(keys) is dict and type(keys.get("v")) is int and keys["v"] == 1, "malformed", "v")
    return keys  # type: ignore[no-any-return]


def check_stop(stop: Mapping[str, Any]) -> None:
    """What a stop says of itself, in STATE and in HELD alike."""
    need(is_bytes(stop["dig"], 32, 32) and is_bytes(stop["can"], 32, 32), "malformed", "dig or can")
    need(is_text(stop["act"]) and GRANT.fullmatch(stop["act"]), "malformed", "act")
    need(not stop["act"].endswith("*"), "malformed", "act")
    need(is_spiffe(stop["by"]) and stop["rol"] in ("requester", "operator"), "malformed", "by or rol")
    need(is_text(stop["rsn"]) and is_uint(stop["end"]), "malformed", "rsn or end")


def read_stop(value: bytes, subject: str, stored: int, world: World) -> dict[str, Any]:
    parts = array_of(value, 32_768, 4)
    stop = keys_of(parts[0], 2_048)
    need(set(stop) == {"v", "own", "dig", "act", "by", "rol", "rsn", "end", "at", "can"}, "malformed", "keys")
    need(is_spiffe(stop["own"]), "malformed", "own")
    check_stop(stop)
    token = world.root.token
    need(
        subject == f"state.{token(stop['own'])}.stop.{stop['dig'].hex()}.{token(stop['by'])}", "malformed", "the place"
    )
    check_time(stop["at"], stored)
    check_signed(parts, "stop", stop["own"], stop["at"], world)
    return stop


def concerns(stop: Mapping[str, Any], header: Mapping[str, Any], digest: bytes) -> bool:
    tokens = header["to"].split(".")
    action = f"{tokens[1]}.{'_' if tokens[0] == 'control' else ''}{tokens[2]}"
    return bool(
        stop["dig"] == digest
        and header.get("aud") == stop["own"]
        and stop["act"] == action
        and (stop["rol"] == "operator" or header["iss"] == stop["by"])
    )


def tick_names(grant: bytes, tick: int, owner: str) -> dict[str, str]:
    """The subject of a tick's claim, and `id` and `idm` of its task."""
    h = H(grant + tick.to_bytes(8, "big"))
    ident = bytearray((tick // 1_000).to_bytes(6, "big") + h[16:26])
    ident[6] = 0x70 | ident[6] & 15
    ident[8] = 0x80 | ident[8] & 63
    return {"subject": f"state.{owner}.tick.{h.hex()}", "id": ident.hex(), "idm": f"tick-{h.hex()[:32]}"}


def read_own(value: bytes, kind: str, subject: str, stored: int, own: str, world: World) -> dict[str, Any]:
    """A payload of the owner's that says where it stands, whatever other keys it has."""
    parts = array_of(value, 32_768, 4)
    keys = keys_of(parts[0], 8_192)
    need(keys.get("sub") == subject, "malformed", "another place")
    check_time(keys.get("at"), stored)
    check_signed(parts, kind, own, keys["at"], world)
    return keys


def read_tick(value: bytes, subject: str, stored: int, own: str, world: World) -> dict[str, Any]:
    keys = read_own(value, "tick", subject, stored, own, world)
    need(keys.get("stage") in ("claimed", "sent", "void") and is_uint(keys.get("until")), "malformed", "stage or until")
    return {"stage": keys["stage"], "until": keys["until"]}


def read_last_tick(value: bytes, subject: str, stored: int, own: str, world: World) -> dict[str, Any]:
    keys = read_own(value, "last-tick", subject, stored, own, world)
    need(is_uint(keys.get("t")) and type(keys.get("task")) is bytes, "malformed", "t or task")
    handle = keys_of(keys["task"], 2_048)
    need(
        set(handle) in ({"v", "dig", "id", "aud", "end"}, {"v", "dig", "id", "aud", "end", "rpl"}), "malformed", "task"
    )
    need(is_bytes(handle["dig"], 32, 32) and is_bytes(handle["id"], 16, 16), "malformed", "task")
    need(is_spiffe(handle["aud"]) and is_uint(handle["end"]), "malformed", "task")
    return {"t": keys["t"], "task": keys["task"]}


# ---- effects ---------------------------------------------------------------------------------------------------------


def packed(value: Any) -> bytes:
    """The encoding of nil, of short text and of a short array of these."""
    if value is None:
        return b"\xc0"
    if type(value) is list:
        return bytes([0x90 | len(value)]) + b"".join(map(packed, value))
    data: bytes = value.encode()
    if len(data) < 32:
        return bytes([0xA0 | len(data)]) + data
    wide = len(data) > 255
    return (b"\xda" if wide else b"\xd9") + len(data).to_bytes(2 if wide else 1, "big") + data


def effect_key(header: Mapping[str, Any], digest: bytes, context: Mapping[str, Any] | None) -> bytes:
    if "idm" not in header:
        return digest
    who = [None, None] if context is None else [context["idp"], context["sub"]]
    if context is not None and "typ" in context:
        who.append(context["typ"])
    return H(packed(["idm", header["iss"], header["to"], *who, header["idm"]]))


def read_claim(value: bytes, own: str, world: World) -> tuple[dict[str, Any], bool]:
    """A claim, and whether its owner signed it."""
    parts = array_of(value, 262_144, 1, 4)
    claim = keys_of(parts[0], 65_536)
    least = {"v", "key", "dig", "first", "by", "stage", "at", "until"}
    need(set(claim) in (least, least | {"typ", "res"}), "malformed", "keys")
    need(all(is_bytes(claim[name], 32, 32) for name in ("key", "dig", "first")), "malformed", "a hash")
    need(is_bytes(claim["by"], 16, 16) and is_uint(claim["at"]) and is_uint(claim["until"]), "malformed", "by or times")
    need(claim["stage"] in ("started", "free", "done", "unknown"), "malformed", "stage")
    need("res" not in claim or (type(claim["typ"]) is str and type(claim["res"]) is bytes), "malformed", "result")
    signed = len(parts) == 4
    try:
        if signed:
            check_signed(parts, "claim", own, claim["at"], world)
    except Bad:
        signed = False
    if not signed:
        claim.pop("typ", None)
        claim.pop("res", None)
    need("res" not in claim or (claim["stage"] == "done" and len(claim["res"]) <= 65_536), "malformed", "result")
    del claim["v"]
    return claim, signed


# ---- uses ------------------------------------------------------------------------------------------------------------


def read_uses(value: bytes, subject: str, stored: int, own: str, world: World) -> dict[bytes, int]:
    found = re.fullmatch(r"state\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([0-9]+)", subject)
    need(found and found[1] == world.root.token(own), "malformed", "the place")
    assert found is not None
    parts = array_of(value, 131_072, 4)
    payload = decode(parts[0], text=32_768)
    need(type(payload) is list and len(payload) == 5, "malformed", "payload")
    version, name, slot, at, listed = payload
    need(is_uint(version) and is_uint(slot), "malformed", "payload")
    need((version, name, slot) == (1, found[2], int(found[3])), "malformed", "of another place")
    need(type(listed) is bytes and len(listed) % 24 == 0, "malformed", "uses")
    check_time(at, stored)
    check_signed(parts, "uses", own, at, world)
    return {listed[i : i + 16]: int.from_bytes(listed[i + 16 : i + 24], "big") for i in range(0, len(listed), 24)}


# ---- attempts --------------------------------------------------------------------------------------------------------


def read_attempts(value: bytes, subject: str, stored: int, own: str, world: World) -> dict[str, Any]:
    """How the attempts at a message went ("Poison messages"): the message is the one whose hash the subject has."""
    parts = array_of(value, 1_048_576, 4)
    payload = decode(parts[0])
    need(type(payload) is list and len(payload) == 6, "malformed", "payload")
    version, digest, deaths, alone, is_open, at = payload
    need(is_uint(version) and version == 1 and is_bytes(digest, 32, 32), "malformed", "version or hash")
    need(subject == f"state.{world.root.token(own)}.attempts.{digest.hex()}", "malformed", "of another message")
    need(is_uint(deaths) and deaths <= 1, "malformed", "deaths")
    need(type(alone) is bool and type(is_open) is bool, "malformed", "alone or open")
    check_time(at, stored)
    check_signed(parts, "attempts", own, at, world)
    return {"deaths": deaths, "alone": alone, "open": is_open}


def following_attempt(count: Mapping[str, Any]) -> dict[str, Any] | None:
    """The count of the next attempt; None if the message is a dead letter."""
    deaths = count["deaths"] + (1 if count["open"] and count["alone"] else 0)
    return {"deaths": deaths, "alone": count["open"], "open": True} if deaths < 2 else None


def read_failed(value: bytes, subject: str, stored: int, own: str, world: World) -> dict[str, Any]:
    """How many attempts at a message have failed ("Failed attempts")."""
    parts = array_of(value, 1_048_576, 4)
    payload = decode(parts[0])
    need(type(payload) is list and len(payload) == 4, "malformed", "payload")
    version, digest, failed, at = payload
    need(is_uint(version) and version == 1 and is_bytes(digest, 32, 32), "malformed", "version or hash")
    need(subject == f"state.{world.root.token(own)}.failed.{digest.hex()}", "malformed", "of another message")
    need(is_uint(failed) and failed >= 1, "malformed", "failed")
    check_time(at, stored)
    check_signed(parts, "failed", own, at, world)
    return {"failed": failed}


def read_floor(value: bytes, subject: str, stored: int, own: str, world: World) -> dict[str, Any]:
    """How far a consumer was acknowledged, and what it listens to ("Consumers that are moved")."""
    parts = array_of(value, 1_048_576, 4)
    payload = decode(parts[0], 6 + 2 * 512)
    need(type(payload) is list and len(payload) >= 6 and len(payload) % 2 == 0, "malformed", "payload")
    version, digest, created, floor, moves, *more, at = payload
    listened = {more[i]: more[i + 1] for i in range(0, len(more), 2) if type(more[i]) is str and is_uint(more[i + 1])}
    need(2 * len(listened) == len(more), "malformed", "what it listens to")
    need(is_uint(version) and version == 1 and is_bytes(digest, 32, 32), "malformed", "version or hash")
    need(subject == f"state.{world.root.token(own)}.floor.{digest.hex()}", "malformed", "of another consumer")
    need(is_uint(created) and is_uint(floor) and is_uint(moves), "malformed", "created, floor or moves")
    check_time(at, stored)
    check_signed(parts, "floor", own, at, world)
    return {"created": created, "floor": floor, "moves": moves, "listened": listened}
