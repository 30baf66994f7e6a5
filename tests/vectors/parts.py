"""Vectors of results in parts: which bodies are the result, and what is none (SPEC.md section 7, "Results in parts")."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256

from vectors.issuing import Json

__all__ = ["parts"]

PARTS = "application/vnd.sealbus.parts.v1+json"
STATUS = "application/vnd.sealbus.status.v1+json"
DELIVERY = 65_536


def parts() -> Json:
    """Return the whole file."""
    good: dict[str, tuple[list[Json], list[bytes]]] = {
        "three parts": ([*_parts(b"a", b"b", b"c"), _final(b"a", b"b", b"c")], [b"a", b"b", b"c"]),
        "none": ([_final()], []),
        "one that is empty": ([_part(0, b""), _final(b"")], [b""]),
        "another status in between": ([_part(0, b"a"), _working(1), _part(1, b"b", seq=2), _final(b"a", b"b")], [b"a", b"b"]),
        "the next delivery begins again": (
            [*_parts(b"a", b"b"), *_parts(b"c", delivery=2), _final(b"c", delivery=2)],
            [b"c"],
        ),
        "the third delivery begins again, the second told none": (
            [*_parts(b"a"), *_parts(b"b", b"c", delivery=3), _final(b"b", b"c", delivery=3)],
            [b"b", b"c"],
        ),
        "the largest part": ([_part(0, bytes(65_536)), _final(bytes(65_536))], [bytes(65_536)]),
        "numbers of statuses with gaps": ([_part(0, b"a", seq=3), _part(1, b"b", seq=9), _final(b"a", b"b")], [b"a", b"b"]),
    }  # fmt: skip
    two = _parts(b"a", b"b")
    bad: dict[str, tuple[str, list[Json]]] = {
        "the first is missing": ("bad_result", [_part(1, b"b")]),
        "one in the middle is missing": ("bad_result", [_part(0, b"a"), _part(2, b"c")]),
        "one comes twice": ("bad_result", [_part(0, b"a"), _part(0, b"a", seq=1)]),
        "out of order": ("bad_result", [_part(0, b"a"), _part(2, b"c"), _part(1, b"b")]),
        "the next delivery does not begin with its first": ("bad_result", [*two, _part(2, b"c", delivery=2)]),
        "of an earlier delivery": ("bad_result", [*_parts(b"a", delivery=2), _part(1, b"b")]),
        "the last is missing": ("bad_result", [_part(0, b"a"), _final(b"a", b"b")]),
        "one more than the result says": ("bad_result", [*two, _final(b"a")]),
        "another part": ("bad_result", [*two, _final(b"a", b"c")]),
        "in another order": ("bad_result", [*two, _final(b"b", b"a")]),
        "cut at another place": ("bad_result", [*_parts(b"ab", b"c"), _final(b"a", b"bc")]),
        "of the delivery before": ("bad_result", [*_parts(b"a"), *_parts(b"b", delivery=2), _final(b"a", delivery=2)]),
        "a part of 65,537 bytes": ("bad_result", [_part(0, bytes(65_537))]),
        "a result with white space": ("bad_result", [*two, _spelled(b"a", b"b", text='{"v":1, "parts":2,"hash":"%s"}')]),
        "a result in another order": ("bad_result", [*two, _spelled(b"a", b"b", text='{"parts":2,"v":1,"hash":"%s"}')]),
        "a result of version 2": ("bad_result", [*two, _spelled(b"a", b"b", text='{"v":2,"parts":2,"hash":"%s"}')]),
        "a result with more": ("bad_result", [*two, _spelled(b"a", b"b", text='{"v":1,"parts":2,"hash":"%s","more":0}')]),
        "a part without a number": ("bad_body", [{**_status(0, b"a"), "typ": "text/plain"}]),
        "a part whose number is negative": ("bad_body", [_part(-1, b"a")]),
        "a part whose number is a text": ("bad_body", [{**_status(0, b"a"), "typ": "text/plain", "prt": "0"}]),
        "a part whose number is true": ("bad_body", [{**_status(0, b"a"), "typ": "text/plain", "prt": True}]),
    }  # fmt: skip
    return {
        "accept": [
            {"name": name, "statuses": statuses, "expect": [_pieces(body) for body in bodies]}
            for name, (statuses, bodies) in good.items()
        ],
        "reject": [{"name": name, "code": code, "statuses": statuses} for name, (code, statuses) in bad.items()],
    }


def _pieces(body: bytes) -> Json:
    return body.hex() if len(body) < 256 else [{"hex": "00", "times": len(body)}]


def _status(seq: int, body: bytes, *, fin: bool = False) -> dict[str, Json]:
    return {"seq": seq, "fin": fin, "typ": STATUS, "body": _pieces(body)}


def _part(number: int, body: bytes, *, seq: int | None = None, delivery: int = 1) -> Json:
    own = number if seq is None else seq
    return {**_status((delivery - 1) * DELIVERY + max(own, 0), body), "typ": "text/plain", "prt": number}


def _parts(*bodies: bytes, delivery: int = 1) -> list[Json]:
    return [_part(number, body, delivery=delivery) for number, body in enumerate(bodies)]


def _working(seq: int) -> Json:
    return _status(seq, b'{"state":"working","note":"half of it"}')


def _hash(bodies: Sequence[bytes]) -> str:
    return sha256(b"".join(sha256(body).digest() for body in bodies)).hexdigest()


def _final(*bodies: bytes, delivery: int = 1) -> Json:
    said = {"v": 1, "parts": len(bodies), "hash": _hash(bodies)}
    return _spelled(*bodies, text=json.dumps(said, separators=(",", ":")), delivery=delivery)


def _spelled(*bodies: bytes, text: str, delivery: int = 1) -> Json:
    body = (text % _hash(bodies) if "%s" in text else text).encode()
    return {**_status(delivery * DELIVERY - 1, body, fin=True), "typ": PARTS}
