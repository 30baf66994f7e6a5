"""Reads what agents keep in HELD with nothing of sealbus, written from envelopes/SPEC.md section 7, "HELD", alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from independent.control_bodies import read_schedule
from independent.stored_values import World, array_of, check_signed, check_stop, check_time, keys_of
from independent.verify_export import (
    Bad,
    H,
    asked_approval,
    is_bytes,
    is_spiffe,
    is_text,
    is_uint,
    need,
    read_bundle,
    read_header,
    read_record,
    read_restored_stream,
)

__all__ = [
    "Held",
    "bundles_at",
    "newest",
    "read_held",
    "read_kept_stop",
    "read_key_book",
    "read_marker",
    "read_parked",
    "read_planned",
]


class Held(NamedTuple):
    """A genuine value: whose it is, its number, its own keys, and what is not signed."""

    subject: str
    own: str
    number: int
    keys: dict[str, Any]
    extra: bytes


def read_held(value: bytes, kind: str, subject: str, stored: int, world: World) -> Held:
    payload, signature, key, token, extra = array_of(value, 917_504, 5)
    need(len(payload) <= 524_288, "malformed", "a payload that is too large")
    keys = keys_of(payload, 2_048, 2_048)
    own, number, at = keys.get("own"), keys.get("n"), keys.get("at")
    need(is_spiffe(own) and is_uint(number, 1), "malformed", "own or n")
    assert type(own) is str
    assert type(number) is int
    need(keys.get("sub") == subject and subject.split(".")[1] == world.root.token(own), "malformed", "the place")
    need(keys.get("ext") == H(extra), "malformed", "ext")
    check_time(at, stored)
    check_signed([payload, signature, key, token], kind, own, keys["at"], world)
    own_keys = {name: one for name, one in keys.items() if name not in ("v", "own", "sub", "n", "at", "ext")}
    return Held(subject, own, number, own_keys, extra)


def newest(values: Sequence[tuple[bytes, int]], kind: str, subject: str, world: World) -> int | None:
    """Which of the values that were stored under `subject`, each with its time, counts."""
    best: tuple[int, int] | None = None
    for place, (value, stored) in enumerate(values):
        try:
            number = read_held(value, kind, subject, stored, world).number
        except Bad:
            continue
        if best is None or number > best[0]:
            best = (number, place)
    return best[1] if best is not None else None


def read_kept_stop(held: Held) -> dict[str, Any]:
    stop = held.keys
    need(set(stop) == {"dig", "act", "by", "rol", "rsn", "end", "can", "mad"}, "malformed", "keys")
    check_stop(stop)
    need(is_uint(stop["mad"]) and held.subject.split(".")[3] == stop["dig"].hex(), "malformed", "mad or place")
    return stop


def read_marker(held: Held, task: bytes) -> dict[str, Any]:
    """The marker of the task with this header."""
    marker = held.keys
    need(set(marker) == {"dig", "unt", "end"} and marker["dig"] == H(task), "malformed", "keys or dig")
    need(is_uint(marker["unt"]) and type(marker["end"]) is bool, "malformed", "unt or end")
    need(held.own == read_header(task)["aud"], "malformed", "of another agent")
    return marker


def read_verdict(raw: bytes) -> dict[str, Any]:
    said = keys_of(raw, 2_048)
    texts, times, hashes = ("usr", "idp", "sid", "cid", "acr"), ("aut", "tim", "iss"), ("msg", "rec")
    need(set(said) == {"v", "vrd", "edg", *texts, *times, *hashes}, "malformed", "keys of a verdict")
    need(said["vrd"] in ("approve", "deny", "withdraw") and is_spiffe(said["edg"]), "malformed", "vrd or edg")
    need(
        all(is_text(said[name]) for name in texts) and all(is_uint(said[name]) for name in times),
        "malformed",
        "verdict",
    )
    need(all(is_bytes(said[name], 32, 32) for name in hashes), "malformed", "msg or rec")
    return said


def read_parked(held: Held) -> dict[str, Any]:
    parked = held.keys
    least = {"que", "dig", "rec", "snc", "unt", "sta", "trn", "run"}
    need(set(parked) in (least, least | {"apr"}), "malformed", "keys")
    need(all(is_uint(parked[name]) for name in ("snc", "unt", "trn")), "malformed", "times or turn")
    need(parked["sta"] in ("waiting", "running", "ended") and type(parked["run"]) is bytes, "malformed", "sta or run")
    if "apr" in parked:
        need(type(parked["apr"]) is list and 1 <= len(parked["apr"]) <= 16, "malformed", "apr")
        need(all(type(one) is bytes for one in parked["apr"]), "malformed", "apr")
        for raw in parked["apr"]:
            read_verdict(raw)
    need(type(parked["rec"]) is bytes, "malformed", "rec")
    record = read_record(parked["rec"])
    need(record["k"] == "decision" and not record["alw"] and "sto" in record, "malformed", "no denial of a task")
    need("inp" in record, "malformed", "no input document")
    queue = asked_approval(record.get("obl", b"[]"))["queue"]
    header = read_header(record["hdr"])
    need(parked["que"] == queue and parked["dig"] == H(record["hdr"]), "malformed", "que or dig")
    need(header.get("aud") == held.own, "malformed", "a task of another agent")
    agent = held.subject.split(".")[1]
    need(held.subject == f"held.{agent}.task.{queue}.{parked['dig'].hex()}", "malformed", "place")
    return parked


def read_key_book(held: Held) -> list[dict[str, Any]]:
    """The `bundle` records, in their order."""
    need(set(held.keys) in ({"rec"}, {"rec", "rst"}), "malformed", "keys")
    need(type(held.keys["rec"]) is list and held.keys["rec"], "malformed", "rec")
    if "rst" in held.keys:
        lines = held.keys["rst"]
        need(type(lines) is list and 1 <= len(lines) <= 256, "malformed", "rst")
        for line in lines:
            need(type(line) is str, "malformed", "a restored stream")
            read_restored_stream(line)
    found: list[dict[str, Any]] = []
    for raw in held.keys["rec"]:
        need(type(raw) is bytes, "malformed", "a record")
        record = read_record(raw)
        need(record["k"] == "bundle" and "x5c" not in record, "malformed", "another record")
        read_bundle(record["jwt"])
        need(record not in found, "malformed", "a record twice")
        found.append(record)
    return found


def bundles_at(records: Sequence[dict[str, Any]], time: int) -> list[dict[str, str]]:
    """The sets of bundles for a value of this time, by the hash of each: the current ones, then the next, if these differ."""
    domains = {record["dom"] for record in records}
    then: dict[str, str] = {}
    after: dict[str, str] = {}
    for domain in domains:
        known = sorted((one for one in records if one["dom"] == domain), key=lambda one: int(one["cur"]))
        current = max([i for i, one in enumerate(known) if one["cur"] <= time], default=0)
        then[domain] = H(known[current]["jwt"]).hex()
        after[domain] = H(known[min(current + 1, len(known) - 1)]["jwt"]).hex()
    return [then] if then == after else [then, after]


def read_planned(held: Held) -> dict[str, Any]:
    """A schedule as its owner keeps it."""
    keys = held.keys
    least = {"sta", "typ", "gdig", "giss", "gisu", "cdig", "ciss", "cisu", "sto", "seq", "snc"}
    need(set(keys) in (least, least | {"ctx"}), "malformed", "keys")
    need(keys["sta"] in ("on", "paused", "removed") and type(keys["typ"]) is str, "malformed", "sta or typ")
    need(is_spiffe(keys["giss"]) and is_spiffe(keys["ciss"]), "malformed", "giss or ciss")
    need(all(is_uint(keys[name]) for name in ("gisu", "cisu", "sto", "seq", "snc")), "malformed", "times or seq")
    need(all(type(keys[name]) is bytes for name in ("gdig", "cdig")), "malformed", "gdig or cdig")
    need(type(keys.get("ctx", b"")) is bytes, "malformed", "ctx")
    said = read_schedule(held.extra, keys["typ"])
    need("do" in said and said["name"] == held.subject.split(".")[3], "malformed", "body")
    return keys
