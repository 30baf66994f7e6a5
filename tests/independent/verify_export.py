#!/usr/bin/env python3
"""Verifies an export of a sealbus audit log, with nothing of sealbus: Python's standard library and `cryptography`.

    python verify_export.py DIR --root root.json

Written from envelopes/SPEC.md alone; the numbers of sections and steps are those of that page. Prints one line for
each finding, then what was seen; exits with 0 if there was none, else with 4. It never says yes to what it did not check:
whatever it can't read is a finding.
"""

from __future__ import annotations

import argparse
import base64
import json
import re
import struct
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from time import gmtime, strftime
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

SECOND = 1_000_000
DAY = 86_400 * SECOND
TOP = 2**53 - 1
TEXT = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
SPIFFE = re.compile(r"spiffe://[a-z0-9._-]{1,255}(/[A-Za-z0-9._-]+)+")
DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")
DOTS = re.compile(r"/\.\.?(/|$)")
SUBJECT = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
GRANT = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*(\.\*)?")
TOKEN = re.compile(r"[A-Za-z0-9_-]+")


def H(data: bytes) -> bytes:  # noqa: N802  the name that the specification gives it
    return sha256(data).digest()


class Bad(Exception):
    """Something is not as the specification wants it."""

    def __init__(self, code: str, words: str = "") -> None:
        super().__init__(f"{code}: {words}")
        self.code, self.words = code, words


def need(condition: object, code: str, words: str = "") -> None:
    if not condition:
        raise Bad(code, words)


# ---- section 1: encoding ---------------------------------------------------------------------------------------------


class Reader:
    """The canonical subset of msgpack: shortest forms only, so that every value has one spelling."""

    def __init__(self, data: bytes, items: int, entries: int, text: int, *, nil: bool, negative: bool) -> None:
        self.data, self.at = data, 0
        self.items, self.entries, self.text, self.nil, self.negative = items, entries, text, nil, negative

    def take(self, count: int) -> bytes:
        need(count <= len(self.data) - self.at, "malformed", "declares more than there is")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "big")

    def length(self, width: int, least: int) -> int:
        value = self.number(width)
        need(value >= least, "malformed", "not the shortest form")
        return value

    def value(self, depth: int = 1) -> Any:
        lead = self.take(1)[0]
        if lead <= 0x7F:
            return lead
        if lead >= 0xE0:
            need(self.negative, "malformed", "negative")
            return lead - 256
        if lead <= 0x8F:
            return self.map(lead & 15, depth)
        if lead <= 0x9F:
            return self.array(lead & 15, depth)
        if lead <= 0xBF:
            return self.string(lead & 31)
        match lead:
            case 0xC0:
                need(self.nil, "malformed", "nil")
                return None
            case 0xC2 | 0xC3:
                return lead == 0xC3
            case 0xC4 | 0xC5 | 0xC6:
                width = 1 << (lead - 0xC4)
                return self.take(self.length(width, (0, 0x100, 0x10000)[lead - 0xC4]))
            case 0xCC | 0xCD | 0xCE | 0xCF:
                value = self.length(1 << (lead - 0xCC), (0x80, 0x100, 0x10000, 0x100000000)[lead - 0xCC])
                need(value <= TOP, "malformed", "integer")
                return value
            case 0xD0 | 0xD1 | 0xD2 | 0xD3:
                width = 1 << (lead - 0xD0)
                value = int.from_bytes(self.take(width), "big", signed=True)
                need(self.negative and value < (-32, -0x80, -0x8000, -0x80000000)[lead - 0xD0], "malformed", "integer")
                need(value >= -TOP, "malformed", "integer")
                return value
            case 0xD9 | 0xDA | 0xDB:
                return self.string(self.length(1 << (lead - 0xD9), (32, 0x100, 0x10000)[lead - 0xD9]))
            case 0xDC | 0xDD:
                return self.array(self.length(2 if lead == 0xDC else 4, 16 if lead == 0xDC else 0x10000), depth)
            case 0xDE | 0xDF:
                return self.map(self.length(2 if lead == 0xDE else 4, 16 if lead == 0xDE else 0x10000), depth)
        raise Bad("malformed", "a type that there is not")

    def string(self, length: int) -> str:
        need(length <= self.text, "malformed", "text too long")
        try:
            text = self.take(length).decode()
        except UnicodeDecodeError as error:
            raise Bad("malformed", "not UTF-8") from error
        need(not TEXT.search(text), "malformed", "a control character")
        return text

    def array(self, count: int, depth: int) -> list[Any]:
        need(depth <= 5 and count <= self.items and count <= len(self.data) - self.at, "malformed", "array")
        return [self.value(depth + 1) for _ in range(count)]

    def map(self, count: int, depth: int) -> dict[str, Any]:
        need(self.entries, "malformed", "a map where there is none")
        need(depth <= 5 and count <= self.entries and count <= len(self.data) - self.at, "malformed", "map")
        found: dict[str, Any] = {}
        last: bytes | None = None
        for _ in range(count):
            key = self.value(depth + 1)
            need(type(key) is str, "malformed", "key")
            raw = key.encode()
            need(last is None or raw > last, "malformed", "order of keys")
            last = raw
            found[key] = self.value(depth + 1)
        return found


def decode(
    data: bytes, items: int = 32, entries: int = 32, text: int = 256, *, nil: bool = False, negative: bool = False
) -> Any:
    reader = Reader(data, items, entries, text, nil=nil, negative=negative)
    value = reader.value()
    need(reader.at == len(data), "malformed", "something after the value")
    return value


def is_uint(value: Any, least: int = 0) -> bool:
    return type(value) is int and least <= value <= TOP


def is_bytes(value: Any, least: int, most: int) -> bool:
    return type(value) is bytes and least <= len(value) <= most


def is_text(value: Any, least: int = 0, most: int = 256) -> bool:
    return type(value) is str and len(value) >= least and len(value.encode()) <= most


def is_spiffe(value: Any) -> bool:
    return type(value) is str and len(value) <= 2048 and bool(SPIFFE.fullmatch(value)) and not DOTS.search(value)


def is_subject(value: Any) -> bool:
    return type(value) is str and len(value) <= 255 and bool(SUBJECT.fullmatch(value))


def domain_of(spiffe_id: str) -> str:
    return spiffe_id.split("/", 3)[2]


# ---- RFC 9162 --------------------------------------------------------------------------------------------------------


def leaf_of(data: bytes) -> bytes:
    return H(b"\x00" + data)


def node(left: bytes, right: bytes) -> bytes:
    return H(b"\x01" + left + right)


def tree_root(leaves: list[bytes]) -> bytes:
    """Section 2.1.1, by levels: pairs are joined, an odd last one goes up as it is."""
    if not leaves:
        return H(b"")
    while len(leaves) > 1:
        above = [node(leaves[i], leaves[i + 1]) for i in range(0, len(leaves) - 1, 2)]
        leaves = above + leaves[len(above) * 2 :]
    return leaves[0]


def root_by_path(leaf: bytes, size: int, index: int, path: list[bytes]) -> bytes:
    """Section 2.1.3.2."""
    need(0 <= index < size, "bad_signature", "leaf outside its tree")
    first, last, result = index, size - 1, leaf
    for step in path:
        need(last > 0, "bad_signature", "a node is left over")
        if first & 1 or first == last:
            result = node(step, result)
            while first and not first & 1:
                first, last = first >> 1, last >> 1
        else:
            result = node(result, step)
        first, last = first >> 1, last >> 1
    need(last == 0, "bad_signature", "a node is missing")
    return result


# ---- section 4: signatures -------------------------------------------------------------------------------------------

MESSAGE, CONTEXT = b"application/vnd.sealbus.message.v1", b"application/vnd.sealbus.context.v1"
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@lru_cache(4096)
def point(key: bytes) -> ec.EllipticCurvePublicKey:
    return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + key)


def check_key(key: bytes) -> None:
    try:
        point(key)
    except ValueError as error:
        raise Bad("malformed", "key is not on the curve") from error


@lru_cache(65536)
def es256(key: bytes, signature: bytes, message: bytes) -> bool:
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    if not (1 <= r < ORDER and 1 <= s <= (ORDER - 1) // 2):
        return False
    try:
        point(key).verify(encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def check_proof(proof: Any, data: bytes, kind: bytes, key: bytes) -> None:
    size, index, path, signature = proof
    body = root_by_path(leaf_of(data), size, index, path) + struct.pack(">I", size)
    covered = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(body), body)
    need(es256(key, signature, covered), "bad_signature", "signature")


def is_proof(value: Any) -> bool:
    return (
        type(value) is list
        and len(value) == 4
        and is_uint(value[0], 1)
        and value[0] <= 4096
        and is_uint(value[1])
        and value[1] < value[0]
        and type(value[2]) is list
        and len(value[2]) <= 12
        and all(is_bytes(one, 32, 32) for one in value[2])
        and is_bytes(value[3], 64, 64)
    )


# ---- section 5: credentials and bundles ------------------------------------------------------------------------------


def unbase64url(text: str) -> bytes:
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError as error:
        raise Bad("bad_credential", "base64url") from error
    need(base64.urlsafe_b64encode(data).rstrip(b"=") == text.encode(), "bad_credential", "base64url is not canonical")
    return data


def strict_json(data: bytes, depth: int) -> dict[str, Any]:
    """One meaning or none: no repeated names, not too deep, an object, nothing else."""

    def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        need(len(dict(pairs)) == len(pairs), "bad_json", "a name occurs twice")
        return dict(pairs)

    def refuse(_: str) -> Any:
        raise Bad("bad_json", "not a JSON number")

    try:
        text = data.decode()
        level = 0
        for mark in re.findall(r"[\[{\]}]", re.sub(r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)', "", text, flags=re.DOTALL)):
            level += 1 if mark in "[{" else -1
            need(level <= depth, "bad_json", "nested too deep")
        value = json.loads(text, object_pairs_hook=distinct, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise Bad("bad_json", "not JSON") from error
    need(type(value) is dict, "bad_json", "not an object")
    return value  # type: ignore[no-any-return]


class JwtKey(NamedTuple):
    """A public key that may sign JWT-SVIDs, as its SubjectPublicKeyInfo."""

    curve: str
    info: bytes


CURVES: dict[str, ec.EllipticCurve] = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}
ALGS: dict[str, tuple[str, Any]] = {
    f"{kind}{bits}": ({256: "P-256", 384: "P-384", 512: "P-521"}[bits] if kind == "ES" else kind, digest)
    for kind in ("ES", "RS", "PS")
    for bits, digest in ((256, hashes.SHA256()), (384, hashes.SHA384()), (512, hashes.SHA512()))
}


@lru_cache(256)
def read_bundle(jwks: bytes) -> dict[str, JwtKey]:
    need(len(jwks) <= 65_536, "bad_bundle", "too large")
    listed = strict_json(jwks, 8).get("keys")
    need(type(listed) is list and len(listed) <= 32, "bad_bundle", "keys")
    seen: set[str] = set()
    keys: dict[str, JwtKey] = {}
    for jwk in listed or []:
        need(type(jwk) is dict, "bad_bundle", "a key is not an object")
        need(not set(jwk) & {"d", "p", "q", "dp", "dq", "qi", "oth", "k"}, "bad_bundle", "a private key")
        used = "use" not in jwk or jwk["use"] == "jwt-svid"
        kid = jwk.get("kid")
        if type(kid) is not str:
            need(not used, "bad_bundle", "a key without kid")
            continue
        need(kid not in seen, "bad_bundle", "a kid is repeated")
        seen.add(kid)
        loaded = read_jwk(jwk) if used else None
        if loaded is not None:
            keys[kid] = loaded
    return keys


def info_of(key: Any) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[no-any-return]


def read_jwk(jwk: dict[str, Any]) -> JwtKey | None:
    def octets(name: str) -> bytes:
        need(type(jwk.get(name)) is str, "bad_bundle", "a member is missing")
        return unbase64url(jwk[name])

    try:
        if jwk.get("kty") == "RSA":
            n, e = octets("n"), octets("e")
            need(n and e and n[0] and e[0], "bad_bundle", "not the shortest integer")
            number, exponent = int.from_bytes(n, "big"), int.from_bytes(e, "big")
            if not 2048 <= number.bit_length() <= 4096 or exponent != 65537:
                return None
            need(number % 2, "bad_bundle", "an even modulus")
            return JwtKey("RSA", info_of(rsa.RSAPublicNumbers(exponent, number).public_key()))
        crv = jwk.get("crv")
        if jwk.get("kty") == "EC" and type(crv) is str and crv in CURVES:
            width, x, y = (CURVES[crv].key_size + 7) // 8, octets("x"), octets("y")
            need(len(x) == width and len(y) == width, "bad_bundle", "length of a coordinate")
            return JwtKey(crv, info_of(ec.EllipticCurvePublicKey.from_encoded_point(CURVES[crv], b"\x04" + x + y)))
    except ValueError as error:
        raise Bad("bad_bundle", "a misshapen key") from error
    return None


@dataclass
class Bundles:
    """The bundles of the log's `bundle` records by trust domain, in their order (section 14, "Trust over time")."""

    of: dict[str, list[tuple[int, dict[str, JwtKey]]]] = field(default_factory=dict)

    def add(self, domain: str, current: int, keys: dict[str, JwtKey]) -> None:
        known = self.of.setdefault(domain, [])
        known.append((max(current, known[-1][0]) if known else 0, keys))

    def current(self, time: int) -> Bundles:
        """Only what was current at `time`: one bundle of each trust domain, which counts from the beginning."""
        latest = {domain: [keys for since, keys in known if since <= time][-1] for domain, known in self.of.items()}
        return Bundles({domain: [(0, keys)] for domain, keys in latest.items()})

    def find(self, domain: str, kid: str, time: int) -> JwtKey:
        known = self.of.get(domain)
        need(known, "unknown_trust_domain", domain)
        assert known is not None
        now = max(i for i, (since, _) in enumerate(known) if since <= time)
        order = [now, *range(now + 1, len(known))]
        order += [i for i in range(now - 1, -1, -1) if known[i + 1][0] > time - 60 * SECOND]
        for i in order:
            key: JwtKey | None = known[i][1].get(kid)
            if key is not None:
                return key
        raise Bad("unknown_key", "no such key in the bundles of that time")


@lru_cache(4096)
def read_token(token: bytes, key: bytes) -> tuple[str, str, str, int, int, bytes, bytes]:
    """Return alg, kid, sub, iat, exp, what is signed, and the signature of a token of the right form for `key`."""
    try:
        parts = token.decode("ascii").split(".")
    except UnicodeDecodeError as error:
        raise Bad("bad_credential", "not a JWT") from error
    need(len(parts) == 3, "bad_credential", "not a JWT")
    try:
        jose, claims = (strict_json(unbase64url(part), 8) for part in parts[:2])
    except Bad as error:
        raise Bad("bad_credential", error.words) from error
    alg, kid, typ = jose.get("alg"), jose.get("kid"), jose.get("typ", "JWT")
    need(set(jose) <= {"alg", "kid", "typ"} and type(typ) is str and typ in ("JWT", "JOSE"), "bad_credential", "JOSE")
    need(type(alg) is str and alg in ALGS and type(kid) is str, "bad_credential", "alg or kid")
    x, y = (base64.urlsafe_b64encode(half).rstrip(b"=").decode() for half in (key[:32], key[32:]))
    jwk = f'{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}'.encode()
    urn = "urn:ietf:params:oauth:jwk-thumbprint:sha-256:" + base64.urlsafe_b64encode(H(jwk)).rstrip(b"=").decode()
    need(claims.get("aud") in (urn, [urn]), "bad_credential", "aud")
    iat, exp = claims.get("iat"), claims.get("exp")
    need(is_uint(iat) and is_uint(exp), "bad_credential", "times")
    need(iat < exp <= iat + 86_400, "bad_credential", "life")  # type: ignore[operator]
    need(type(claims.get("sub")) is str, "bad_credential", "sub")
    signed = token[: len(parts[0]) + 1 + len(parts[1])]
    return str(alg), str(kid), claims["sub"], iat, exp, signed, unbase64url(parts[2])  # type: ignore[return-value]


@lru_cache(4096)
def jws_ok(alg: str, curve: str, info: bytes, signed: bytes, signature: bytes) -> bool:
    digest = ALGS[alg][1]
    key: Any = load_der_public_key(info)
    try:
        if curve != "RSA":
            width = (key.curve.key_size + 7) // 8
            if len(signature) != 2 * width:
                return False
            r, s = int.from_bytes(signature[:width], "big"), int.from_bytes(signature[width:], "big")
            key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(digest))
        elif alg.startswith("RS"):
            key.verify(signature, signed, padding.PKCS1v15(), digest)
        else:
            key.verify(signature, signed, padding.PSS(padding.MGF1(digest), digest.digest_size), digest)
    except (InvalidSignature, ValueError):
        return False
    return True


def check_credential(
    credential: Any, header: dict[str, Any], time: int, bundles: Bundles, current: int, *, revoked_before: int = 0
) -> None:
    """Section 5, in its order, at `time`, by what was `current`; `header` is a header or a context's payload."""
    kind, token = credential
    need(kind == 1, "bad_credential", "kind")
    need(H(token) == header["crd"], "bad_credential", "crd")
    alg, kid, sub, iat, exp, signed, signature = read_token(token, header["key"])
    need(sub == header["iss"], "bad_credential", "sub")
    curve, info = bundles.find(domain_of(header["iss"]), kid, current)
    wanted = ALGS[alg][0]
    need(wanted == curve if curve != "RSA" else wanted in ("RS", "PS"), "bad_credential", "alg does not fit the key")
    need(iat * SECOND - 5 * SECOND <= time, "bad_credential", "issued later")
    need(time < exp * SECOND, "credential_expired")
    need(iat * SECOND >= revoked_before, "revoked")
    need(jws_ok(alg, curve, info, signed, signature), "bad_credential", "signature")


# ---- section 3: header -----------------------------------------------------------------------------------------------

ALWAYS = frozenset(["t", "id", "iss", "to", "iat", "exp", "key", "crd", "dig", "typ"])
ANYWHERE = frozenset(["tid", "sch", "ext"])
KINDS: dict[str, tuple[str, str, int]] = {
    "task": ("aud end", "ctx par grt idm re", DAY),
    "call": ("aud end rpl", "ctx par grt idm re", 60 * SECOND),
    "reply": ("aud re", "", 60 * SECOND),
    "chunk": ("aud re seq", "fin", 60 * SECOND),
    "status": ("aud re seq", "fin", DAY),
    "event": ("", "aud re idm", DAY),
    "record": ("", "", DAY),
}


def is_ext(value: Any) -> bool:
    if type(value) is int:
        return abs(value) <= TOP
    return type(value) in (bytes, bool) or is_text(value)


CHECKS: dict[str, Callable[[Any], bool]] = {
    "t": lambda v: type(v) is str,
    "id": lambda v: is_bytes(v, 16, 16),
    "iss": is_spiffe,
    "to": is_subject,
    "aud": is_spiffe,
    "iat": is_uint,
    "exp": is_uint,
    "end": is_uint,
    "key": lambda v: is_bytes(v, 64, 64),
    **dict.fromkeys(("crd", "dig", "ctx", "par", "re"), lambda v: is_bytes(v, 32, 32)),
    "typ": is_text,
    "sch": is_text,
    "rpl": is_subject,
    "seq": lambda v: is_uint(v) and v < 2**32,
    "fin": lambda v: v is True,
    "grt": lambda v: type(v) is list and all(is_text(one) and GRANT.fullmatch(one) for one in v),
    "idm": is_text,
    "tid": lambda v: is_bytes(v, 16, 16),
    "ext": lambda v: type(v) is dict and len(v) <= 16 and all(is_text(k) and is_ext(x) for k, x in v.items()),
}


def read_header(raw: bytes) -> dict[str, Any]:
    header = decode(raw, text=2048, negative=True)
    kind = header.get("t") if type(header) is dict else None
    need(type(kind) is str and kind in KINDS, "malformed", "header: t")
    must, may, life = KINDS[header["t"]]
    least = ALWAYS | set(must.split())
    need(least <= set(header) <= least | set(may.split()) | ANYWHERE, "malformed", "header: keys")
    for key, value in header.items():
        need(CHECKS[key](value), "malformed", f"header: {key}")
    ident, iat, exp = header["id"], header["iat"], header["exp"]
    need(header["t"] == "record" or (ident[6] >> 4 == 7 and ident[8] >> 6 == 2), "malformed", "header: id")
    need(iat < exp <= iat + life, "malformed", "header: exp")
    if "end" in header:
        need(exp <= header["end"] <= iat + DAY, "malformed", "header: end")
    check_key(header["key"])
    return header  # type: ignore[no-any-return]


# ---- section 2: wire -------------------------------------------------------------------------------------------------


class Envelope(NamedTuple):
    """The seven elements but for the format."""

    header: bytes
    body: bytes
    proof: Any
    credential: Any
    context: Any
    ancestors: Any


def read_envelope(payload: bytes) -> Envelope:
    need(len(payload) <= 1_048_576, "too_large")
    value = decode(payload, items=12, entries=0, nil=True)
    need(type(value) is list and len(value) == 7 and type(value[0]) is int and value[0] == 1, "malformed", "envelope")
    need(is_bytes(value[1], 0, 8192) and is_bytes(value[2], 0, 917_504), "malformed", "header or body")
    need(is_proof(value[3]), "malformed", "proof")
    credential = value[4]
    need(type(credential) is list and len(credential) == 2 and is_uint(credential[0]), "malformed", "credential")
    need(is_bytes(credential[1], 0, 4096), "malformed", "token")
    need(type(value[6]) is list, "malformed", "ancestors")
    return Envelope(*value[1:])


# ---- section 8: audit ------------------------------------------------------------------------------------------------

CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")
NOT_ASKED = frozenset({"bad_body", "resource_not_found", "resource_unavailable"}) | {
    f"approval_{what}" for what in ("foreign", "closed", "self", "repeated", "weak")
}
ANSWERED = frozenset({"denied", "obligation_unknown"})


def is_code(value: Any) -> bool:
    return type(value) is str and bool(CODE.fullmatch(value))


def is_extensions(value: Any) -> bool:
    if type(value) is not dict or not 1 <= len(value) <= 16:
        return False
    return all(is_text(name) for name in value) and all(
        is_text(one) or type(one) in (int, bytes, bool) for one in value.values()
    )


TABLES: dict[str, tuple[str, str, dict[str, Callable[[Any], bool]]]] = {
    "decision": (
        "hdr prf act dlv alw",
        "str seq sto opn inp red bdy cod rsn obl rev pol eng mic ext",
        {
            "hdr": lambda v: is_bytes(v, 1, 8192),
            "prf": is_proof,
            "act": lambda v: is_text(v, 1) and bool(SUBJECT.fullmatch(v)),
            "str": lambda v: is_text(v, 1, 255),
            "seq": lambda v: is_uint(v, 1),
            "sto": is_uint,
            "opn": is_uint,
            "dlv": lambda v: is_uint(v, 1),
            "inp": lambda v: is_bytes(v, 1, 65_536),
            "red": lambda v: is_texts(v) and 1 <= len(set(v)) == len(v) <= 32 and all(one[:1] == "/" for one in v),
            "bdy": lambda v: is_bytes(v, 0, 65_536),
            "alw": lambda v: type(v) is bool,
            "cod": is_code,
            "rsn": lambda v: type(v) is list and 1 <= len(v) <= 32 and all(map(is_text, v)),
            "obl": lambda v: is_bytes(v, 1, 65_536),
            "rev": is_text,
            "pol": is_text,
            "eng": is_text,
            "mic": is_uint,
            "ext": is_extensions,
        },
    ),
    "outcome": (
        "dec suc mic dlv",
        "cod out cnt ext",
        {
            "dec": lambda v: is_bytes(v, 32, 32),
            "suc": lambda v: type(v) is bool,
            "cod": is_code,
            "mic": is_uint,
            "dlv": lambda v: is_uint(v, 1),
            "out": lambda v: type(v) is list and 1 <= len(v) <= 1024 and all(is_bytes(one, 32, 32) for one in v),
            "cnt": lambda v: is_uint(v, 1025),
            "ext": is_extensions,
        },
    ),
    "bundle": (
        "dom cur jwt",
        "x5c",
        {
            "dom": lambda v: type(v) is str and bool(DOMAIN.fullmatch(v)),
            "cur": is_uint,
            "jwt": lambda v: is_bytes(v, 1, 65_536),
            "x5c": lambda v: type(v) is list and 1 <= len(v) <= 32 and all(is_bytes(one, 1, 8192) for one in v),
        },
    ),
    "policy": (
        "rev sha siz loc",
        "",
        {
            "rev": is_text,
            "sha": lambda v: is_bytes(v, 32, 32),
            "siz": lambda v: is_uint(v, 1),
            "loc": is_text,
        },
    ),
    "checkpoint": ("not", "", {"not": lambda v: is_bytes(v, 1, 8192)}),
    "denials": (
        "iss min cnt",
        "",
        {
            "iss": is_spiffe,
            "min": lambda v: is_uint(v) and v % (60 * SECOND) == 0,
            "cnt": lambda v: type(v) is dict and bool(v) and all(is_code(k) and is_uint(n, 1) for k, n in v.items()),
        },
    ),
}


def read_record(item: bytes) -> dict[str, Any]:
    record = decode(item, items=1024, text=2048, negative=True)
    need(type(record) is dict and type(record.get("v")) is int and record["v"] == 1, "malformed", "record: v")
    need(is_code(record.get("k")), "malformed", "record: k")
    if record["k"] not in TABLES:
        return record  # type: ignore[no-any-return]  # of a later version
    must, may, checks = TABLES[record["k"]]
    least = {"v", "k", *must.split()}
    need(least <= set(record) <= least | set(may.split()), "malformed", "record: keys")
    for key, value in record.items():
        need(key in ("v", "k") or checks[key](value), "malformed", f"record: {key}")
    if record["k"] == "decision":
        check_decision(record)
    if record["k"] == "outcome":
        need(("cod" in record) is not record["suc"], "malformed", "record: cod")
        need("cnt" not in record or len(record.get("out", ())) == 1024, "malformed", "record: cnt")
    return record  # type: ignore[no-any-return]


def check_decision(record: dict[str, Any]) -> None:
    """Which keys of a decision stand together."""
    keys = set(record)
    place = keys & {"str", "seq", "sto", "opn"}
    need(place in ({"opn"}, {"str", "seq", "sto"}), "malformed", "record: place")
    need("opn" not in keys or record["dlv"] == 1, "malformed", "record: dlv")
    need(("cod" in keys) is not record["alw"], "malformed", "record: cod")
    need(("eng" in keys) is ("mic" in keys), "malformed", "record: eng")
    need("red" not in keys or "inp" in keys, "malformed", "record: red")
    code = record.get("cod")
    if code is None or code in ANSWERED:
        need({"inp", "rev", "pol", "eng", "mic"} <= keys, "malformed", "record: an answer")
        need(code != "obligation_unknown" or "obl" in keys, "malformed", "record: obl")
    elif code in NOT_ASKED:
        need(not keys & {"rsn", "obl", "rev", "pol", "eng", "mic"}, "malformed", "record: not asked")


class Audit(NamedTuple):
    """An audit message, opened."""

    header: dict[str, Any]
    credentials: dict[bytes, Any]
    contexts: dict[bytes, tuple[bytes, Any]]
    ancestors: dict[bytes, tuple[bytes, Any]]
    records: dict[bytes, dict[str, Any]]


def read_audit_body(body: bytes) -> tuple[bytes, Audit]:
    value = decode(body, items=4096)
    need(type(value) is list and len(value) == 3 and type(value[0]) is int and value[0] == 1, "bad_digest", "body")
    need(all(type(half) is list for half in value[1:]), "bad_digest", "body")
    items = value[1] + value[2]
    need(1 <= len(items) <= 4096 and all(type(item) is bytes for item in items), "bad_digest", "items")
    audit = Audit({}, {}, {}, {}, {})
    for item in value[1]:
        read_evidence(item, audit)
    for item in value[2]:
        audit.records.setdefault(leaf_of(item), read_record(item))
    return tree_root([leaf_of(item) for item in items]), audit


def read_evidence(item: bytes, audit: Audit) -> None:
    value = decode(item)
    need(type(value) is list and len(value) == 3, "bad_digest", "evidence")
    sort, first, second = value
    if sort == "credential":
        need(is_uint(first) and is_bytes(second, 0, 4096), "bad_digest", "evidence: credential")
        need(H(second) not in audit.credentials, "bad_digest", "evidence: twice")
        audit.credentials[H(second)] = (first, second)
        return
    need(sort in ("context", "ancestor") and is_bytes(first, 0, 8192) and is_proof(second), "bad_digest", "evidence")
    there = audit.contexts if sort == "context" else audit.ancestors
    need(H(first) not in there, "bad_digest", "evidence: twice")
    there[H(first)] = (first, second)


def open_record(payload: bytes, time: int, bundles: Bundles, root: Root) -> Audit:
    """The archive profile: steps 1, 2, 3, 7, 8 and 9 at the entry's time."""
    envelope = read_envelope(payload)
    header = read_header(envelope.header)
    need(header["t"] == "record", "wrong_kind")
    need(header["to"] == "audit." + root.token(header["iss"]), "wrong_subject")
    check_credential(envelope.credential, header, time, bundles, time)
    check_proof(envelope.proof, envelope.header, MESSAGE, header["key"])
    try:
        digest, audit = read_audit_body(envelope.body)
    except Bad as error:
        raise Bad("bad_digest", error.words) from error
    need(digest == header["dig"], "bad_digest")
    need(envelope.context is None, "bad_context", "present without ctx")
    need(envelope.ancestors == [], "bad_chain", "present without par")
    return audit._replace(header=header)


# ---- sections 6 and 7: what was decided ------------------------------------------------------------------------------


def is_texts(value: Any) -> bool:
    return type(value) is list and all(map(is_text, value))


def is_claim(value: Any) -> bool:
    return type(value) in (int, bool) or is_texts(value) or is_text(value)


def read_context(payload: bytes) -> dict[str, Any]:
    try:
        value = decode(payload, entries=8192, text=2048, negative=True)
        must = {"v", "txn", "iss", "aud", "iat", "exp", "end", "key", "crd", "sub", "idp", "sid", "cid", "scp", "clm"}
        may = {"ten", "wkl", "acr", "amr", "aut", "req", "typ", "dom"}
        need(type(value) is dict and must <= set(value) <= must | may, "bad_context", "keys")
        checks: dict[str, Callable[[Any], bool]] = {
            "v": lambda v: type(v) is int and v == 1,
            "txn": lambda v: is_bytes(v, 16, 16),
            "iss": is_spiffe,
            "wkl": is_spiffe,
            **dict.fromkeys(("aud", "dom"), lambda v: type(v) is str and bool(DOMAIN.fullmatch(v))),
            "typ": lambda v: v in ("client", "workload"),
            "key": lambda v: is_bytes(v, 64, 64),
            "crd": lambda v: is_bytes(v, 32, 32),
            "scp": is_texts,
            "amr": is_texts,
            "clm": lambda v: type(v) is dict and all(is_text(k) and is_claim(x) for k, x in v.items()),
            "req": lambda v: type(v) is dict and all(is_text(k) and is_text(x) for k, x in v.items()),
            **dict.fromkeys(("iat", "exp", "end", "aut"), is_uint),
            **dict.fromkeys(("sub", "idp", "sid", "cid", "ten", "acr"), is_text),
        }
        for key, entry in value.items():
            need(checks[key](entry), "bad_context", key)
        check_key(value["key"])
    except Bad as error:
        raise Bad("bad_context", error.words) from error
    need(value["iat"] < value["exp"] <= value["end"] <= value["iat"] + DAY, "bad_context", "times")
    if "dom" in value:
        before, at, domain = value["sub"].rpartition("@")
        need(before and at and domain == value["dom"], "bad_context", "sub")
    return value  # type: ignore[no-any-return]


class Decided(NamedTuple):
    """A decision whose message was proved again: its record, that message's header and context, and its log entry's time."""

    record: dict[str, Any]
    header: dict[str, Any]
    context: dict[str, Any] | None
    recorder: str
    logged: int
    began: dict[str, Any]
    """The header of the root of its chain."""
    place: int = 0
    """How many other decisions the log holds before it."""

    @property
    def message(self) -> bytes:
        return H(self.record["hdr"])


def check_decided(record: dict[str, Any], audit: Audit, entry_time: int, bundles: Bundles, root: Root) -> Decided:
    """Steps 2, 5 and 7 to 11 at the decision's own time, and who may record it (section 14)."""
    time = record["opn"] if "opn" in record else record["sto"]
    header = read_header(record["hdr"])
    need(time <= entry_time + 5 * SECOND, "not_yet_valid", "decided after it was recorded")
    credential = audit.credentials.get(header["crd"])
    need(credential, "bad_credential", "no evidence of it")
    check_credential(credential, header, time, bundles, time)
    check_proof(record["prf"], record["hdr"], MESSAGE, header["key"])
    need("bdy" not in record or H(record["bdy"]) == header["dig"], "bad_digest", "a body that the header does not name")
    context = check_context(header, audit, time, bundles, root)
    began = check_chain(header, context, audit, time, bundles)
    need(header.get("aud", audit.header["iss"]) == audit.header["iss"], "wrong_audience", "recorded by another")
    return Decided(record, header, context, audit.header["iss"], entry_time, began)


def check_context(
    header: dict[str, Any], audit: Audit, current: int, bundles: Bundles, root: Root
) -> dict[str, Any] | None:
    if "ctx" not in header:
        return None
    found = audit.contexts.get(header["ctx"])
    need(found, "bad_context", "missing")
    assert found is not None
    payload, proof = found
    context = read_context(payload)
    credential = audit.credentials.get(context["crd"])
    need(credential, "bad_credential", "no evidence of it")
    need(context["aud"] == root.trust_domain, "bad_context", "aud")
    need(context["iss"] in root.minters, "context_issuer_refused")
    check_credential(credential, context, context["iat"], bundles, current)
    check_proof(proof, payload, CONTEXT, context["key"])
    return context


def check_chain(
    header: dict[str, Any], context: dict[str, Any] | None, audit: Audit, time: int, bundles: Bundles
) -> dict[str, Any]:
    """Step 11; the header that began the chain."""
    child = header
    links: list[tuple[dict[str, Any], Any, bytes, Any]] = []
    while "par" in child:
        need(len(links) < 8, "chain_too_long")
        found = audit.ancestors.get(child["par"])
        need(found, "bad_chain", "no evidence of an ancestor")
        assert found is not None
        parent = read_header(found[0])
        credential = audit.credentials.get(parent["crd"])
        need(credential, "bad_credential", "no evidence of it")
        need(parent["t"] in ("task", "call"), "bad_chain", "neither task nor call")
        need(child["iss"] == parent["aud"], "bad_chain", "sent by another than the parent was for")
        need(parent["iat"] - 5 * SECOND <= child["iat"] < parent["end"], "bad_chain", "made outside its parent's time")
        need(child["end"] <= parent["end"], "bad_chain", "ends after its parent")
        need(child.get("ctx") == parent.get("ctx"), "bad_chain", "another ctx")
        links.append((parent, credential, *found))
        child = parent
    for link in (header, *(one[0] for one in links)):
        need("end" not in link or time < link["end"], "bad_chain", "ended")
    if context is not None:
        need(child["iss"] == context.get("wkl", context["iss"]), "bad_chain", "started by another")
        need(context["iat"] - 5 * SECOND <= child["iat"] < context["exp"], "bad_chain", "started at another time")
        need(child["end"] <= context["end"], "bad_chain", "ends after the context")
    for parent, credential, raw, proof in links:
        check_credential(credential, parent, parent["iat"], bundles, time)
        check_proof(proof, raw, MESSAGE, parent["key"])
    return child


# ---- section 14: approvals -------------------------------------------------------------------------------------------

GIVEN = frozenset(["verdict", "user", "idp", "session", "client", "acr", "auth_time", "time", "message", "record"])
HEX64 = re.compile("[0-9a-f]{64}")
ACR = re.compile(r"[!#-\[\]-~]+")
OBLIGATION: dict[str, Callable[[Any], bool]] = {
    "type": lambda v: v == "approval",
    "queue": lambda v: is_plain(v) and len(v) <= 64 and bool(TOKEN.fullmatch(v)),
    "text": lambda v: is_plain(v) and v != "",
    "until": lambda v: is_uint(v, 1) and v <= 30 * 86_400,
    "count": lambda v: is_uint(v) and v == 1,
    "acr": lambda v: (
        type(v) is list and all(is_plain(one) and ACR.fullmatch(one) for one in v) and is_plain(" ".join(v))
    ),
    "max_age": lambda v: is_uint(v) and v <= 365 * 86_400,
    "follows": lambda v: type(v) is list and all(is_plain(one) and GRANT.fullmatch(one) for one in v),
    "body": lambda v: type(v) is bool,
}


def is_plain(value: Any) -> bool:
    """A text of JSON that could stand in a message as well: at most 256 bytes, no control characters, whole characters."""
    return type(value) is str and not TEXT.search(value) and len(value.encode()) <= 256


def read_json(data: bytes, depth: int) -> dict[str, Any]:
    try:
        return strict_json(data, depth)
    except Bad as error:
        raise Bad("bad_approval", error.words) from error


def given_approvals(inp: bytes) -> list[dict[str, Any]]:
    """The approvals of an input document, each of the right form."""
    named = inp.count(b'"approvals"')
    if b"\\u" not in inp and (named == 0 or (named == 1 and b'"approvals":[]' in inp)):
        return []
    context = read_json(inp, 32).get("context")
    given = context.get("approvals", []) if type(context) is dict else []
    need(type(given) is list and len(given) <= 16, "bad_approval", "approvals")
    for one in given:
        need(type(one) is dict and set(one) == GIVEN, "bad_approval", "members of an approval")
        need(all(is_plain(one[name]) for name in GIVEN - {"auth_time"}), "bad_approval", "a text of an approval")
        need(one["verdict"] in ("approve", "deny"), "bad_approval", "verdict")
        need(is_uint(one["auth_time"]) and one["auth_time"] <= TOP // SECOND, "bad_approval", "auth_time")
        need(HEX64.fullmatch(one["message"]) and HEX64.fullmatch(one["record"]), "bad_approval", "message or record")
    return list(given)


def asked_approval(obl: bytes) -> dict[str, Any]:
    """The one obligation of a denial that asks for an approval."""
    listed = read_json(b'{"obl":%b}' % obl, 33)
    need(set(listed) == {"obl"} and type(listed["obl"]) is list, "bad_approval", "obligations")
    need(all(type(one) is dict for one in listed["obl"]), "bad_approval", "obligations")
    wanted: list[dict[str, Any]] = [one for one in listed["obl"] if one.get("type") == "approval"]
    need(len(wanted) == 1, "bad_approval", "not one approval that is asked for")
    [asked] = wanted
    need(
        {"type", "queue", "text", "until"} <= set(asked) <= set(OBLIGATION), "bad_approval", "members of what is asked"
    )
    for name, value in asked.items():
        need(OBLIGATION[name](value), "bad_approval", f"obligation: {name}")
    return asked


def said_by(verdict: Decided) -> tuple[str, bytes]:
    """What a person said, and about which decision."""
    body = verdict.record.get("bdy")
    need(body is not None and len(body) <= 4096, "bad_approval", "no body of a verdict")
    need(verdict.header["typ"] == "application/vnd.sealbus.approval.v1+json", "bad_approval", "typ")
    said = read_json(body or b"", 1)
    need(set(said) == {"v", "decision", "verdict", "note"}, "bad_approval", "members of a verdict")
    need(type(said["v"]) is int and said["v"] == 1 and is_plain(said["note"]), "bad_approval", "v or note")
    need(is_plain(said["decision"]) and HEX64.fullmatch(said["decision"]), "bad_approval", "decision")
    need(said["verdict"] in ("approve", "deny", "withdraw"), "bad_approval", "verdict")
    return said["verdict"], bytes.fromhex(said["decision"])


def is_verdict(header: dict[str, Any]) -> bool:
    return bool(re.fullmatch(r"control\.[A-Za-z0-9_-]+\.approve", header["to"]))


def check_approvals(one: Decided, before: Mapping[bytes, Decided], root: Root) -> None:
    """What an allowed decision says about approvals was said, and stands among the decisions `before`, by their leaves."""
    if not one.record["alw"]:
        return
    for pointer in one.record.get("red", ()):
        need(pointer not in ("/context", "/context/approvals"), "bad_approval", "redacted")
        need(not pointer.startswith("/context/approvals/"), "bad_approval", "redacted")
    if is_verdict(one.header):
        return
    people: set[tuple[str, str]] = set()
    for given in given_approvals(one.record["inp"]):
        verdict = before.get(bytes.fromhex(given["record"]))
        need(verdict, "bad_approval", "no such record before it")
        assert verdict is not None
        check_verdict(given, verdict, one, before, root)
        person = given["idp"], given["user"]
        need(person not in people, "bad_approval", "one person twice")
        people.add(person)


def check_verdict(
    given: dict[str, Any], verdict: Decided, one: Decided, before: Mapping[bytes, Decided], root: Root
) -> None:
    header, context, token = verdict.header, verdict.context, root.token(one.recorder)
    need(
        verdict.recorder == one.recorder and verdict.record["alw"], "bad_approval", "not by this agent, or not allowed"
    )
    need(verdict.message.hex() == given["message"], "bad_approval", "message")
    need(verdict.record["act"] == f"{token}._approve", "bad_approval", "act")
    need(header["to"] == f"control.{token}.approve" and header["t"] == "task", "bad_approval", "no verdict")
    need("par" not in header and header.get("re") == one.message, "bad_approval", "about another message")
    need(context is not None and not {"wkl", "typ"} & set(context), "bad_approval", "by no person")
    assert context is not None  # and minted by who sent this, as the root of its chain without `wkl`: `check_chain`
    need("sto" in verdict.record, "bad_approval", "not from a stream")
    said, leaf = said_by(verdict)
    need(said == given["verdict"], "bad_approval", "another verdict")
    asked = check_asked(leaf, verdict, one, before)
    stored = verdict.record["sto"]
    login = [context["sub"], context["idp"], context["sid"], context["cid"], context.get("acr", "")]
    need([given[name] for name in ("user", "idp", "session", "client", "acr")] == login, "bad_approval", "who")
    need(given["auth_time"] == context.get("aut", 0) // SECOND, "bad_approval", "auth_time")
    spelled = strftime("%Y-%m-%dT%H:%M:%SZ", gmtime(stored // SECOND))
    need(given["time"] == spelled, "bad_approval", "time")
    requester = one.context
    need(
        requester is None or (requester["idp"], requester["sub"]) != (context["idp"], context["sub"]),
        "bad_approval",
        "their own",
    )
    need(not asked.get("acr") or context.get("acr") in asked["acr"], "bad_approval", "acr")
    if "max_age" in asked:
        need("aut" in context, "bad_approval", "aut")
        need(header["iat"] - context["aut"] <= asked["max_age"] * SECOND, "bad_approval", "max_age")


def answers(verdict: Decided, before: Mapping[bytes, Decided]) -> bool:
    """Whether a decision from another log is no verdict, or one with its denial before it. If not, its copy here counts."""
    if not is_verdict(verdict.header):
        return True
    try:
        leaf = said_by(verdict)[1]
    except Bad:
        return False
    return leaf in before and before[leaf].place < verdict.place


def check_asked(leaf: bytes, verdict: Decided, one: Decided, before: Mapping[bytes, Decided]) -> dict[str, Any]:
    """The denial that a verdict is about stood before it, asked for it, and it came in time."""
    denial = before.get(leaf)
    need(denial, "bad_approval", "no such denial before it")
    assert denial is not None
    need(denial.place < verdict.place, "bad_approval", "the denial came after the verdict")
    need(denial.recorder == one.recorder and denial.message == one.message, "bad_approval", "a denial of another")
    need(denial.record.get("cod") == "denied" and "obl" in denial.record, "bad_approval", "no denial")
    asked = asked_approval(denial.record["obl"])
    need(verdict.header.get("grt") == asked.get("follows", []), "bad_approval", "grt")
    last = min(denial.logged + asked["until"] * SECOND, one.header["iat"] + 30 * DAY)
    need(verdict.record["sto"] < last + 60 * SECOND, "bad_approval", "late")
    return asked


# ---- section 14: grants of the past ----------------------------------------------------------------------------------

WHO = ("idp", "sub", "cid", "ten", "dom", "acr", "amr", "aut", "clm")


class Granted(NamedTuple):
    """What a user granted, by their message to the edge; `ends` is when it was recorded that it ended."""

    message: bytes
    context: dict[str, Any]
    iat: int
    stored: int
    logged: int
    do: dict[str, Any] | None
    until: int
    ends: list[int]


class Grants:
    """The grants of all users, as the log shows them so far."""

    def __init__(self) -> None:
        self.all: dict[tuple[str, bytes], Granted] = {}
        self.newest: dict[tuple[str, str], Granted] = {}

    def check(self, one: Decided, root: Root) -> None:
        """What is done for a user who is away was granted before."""
        if one.context is None:
            return
        if one.context["sid"].startswith("standing-"):
            self.check_used(one.began, one.context)
        elif one.record["alw"]:
            self.take(one, one.context, root)

    def take(self, one: Decided, context: dict[str, Any], root: Root) -> None:
        """Remember what one message grants or ends, if that is what it does."""
        header, token = one.header, root.token(one.recorder)
        by_edge = header["iss"] == one.recorder and "par" not in header and not {"wkl", "typ"} & set(context)
        there = header["t"] == "task" and header["to"] == f"control.{token}.schedule"
        if (
            not by_edge
            or not there
            or one.record["act"] != f"{token}._schedule"
            or not {"sto", "bdy"} <= set(one.record)
        ):
            return
        if (one.recorder, one.message) in self.all or header["typ"] != "application/vnd.sealbus.schedule.v1+json":
            return
        try:
            name, do, until = read_grant(one.record["bdy"], context, header["iat"])
        except (Bad, ValueError):
            return
        granted = Granted(one.message, context, header["iat"], one.record["sto"], one.logged, do, until, [])
        before = self.newest.get((one.recorder, name))
        if do is not None:
            self.all[one.recorder, one.message] = granted
        if before is not None and before.stored > granted.stored:
            granted.ends.append(before.logged)
            return
        if before is not None and before.message != granted.message:
            before.ends.append(granted.logged)
        self.newest[one.recorder, name] = granted

    def check_used(self, began: dict[str, Any], context: dict[str, Any]) -> None:
        tick = began.get("ext", {}).get("_tick")
        need(began["t"] == "task" and "re" in began and type(tick) is int, "bad_grant", "no tick")
        need(not {"wkl", "typ", "req"} & set(context), "bad_grant", "not of one who is away")
        need(context["sid"] == "standing-" + began["re"][:16].hex(), "bad_grant", "session")
        grant = self.all.get((context["iss"], began["re"]))
        need(grant, "bad_grant", "no such grant before it")
        assert grant is not None
        do = grant.do
        assert do is not None
        need(pack_who(context) == pack_who(grant.context), "bad_grant", "somebody else")
        kept = [one for one in grant.context["scp"] if not one.startswith("sealbus:")]
        need(context["scp"] == kept, "bad_grant", "scp")
        need(began["to"] == f"task.{do['action']}" and began["typ"] == do["typ"], "bad_grant", "another action")
        need(began["dig"] == H(do["body"]), "bad_grant", "another body")
        need(began.get("grt") == do["grants"], "bad_grant", "grt")
        need(tick < grant.until and began["iat"] < grant.until + 2 * DAY, "bad_grant", "over")
        need(max(tick, grant.iat) <= began["iat"] + 5 * SECOND, "bad_grant", "before its time")
        need(not grant.ends or began["iat"] <= grant.ends[0] + 120 * SECOND, "bad_grant", "ended")


def pack_who(context: dict[str, Any]) -> list[Any]:
    """Who somebody is, in a form in which true and 1 differ."""
    return [repr(sorted(one.items()) if type(one) is dict else one) for one in map(context.get, WHO)]


def read_grant(body: bytes, context: dict[str, Any], made: int) -> tuple[str, dict[str, Any] | None, int]:
    """The name that a message is about, what is to be done, None where it ends something, and until when."""
    need(len(body) <= 65_536, "bad_grant", "size")
    said = strict_json(body, 3)
    name, until, when, do = (said.get(key) for key in ("name", "until", "when", "do"))
    users = H(f"{context['idp']}\0{context['sub']}".encode()).hex()[:24]
    need(type(said.get("v")) is int and said["v"] == 1, "bad_grant", "v")
    need(type(name) is str and name.startswith(users + "-"), "bad_grant", "name")
    assert type(name) is str
    if set(said) == {"v", "name", "state"} and said["state"] == "removed":
        return name, None, 0
    need(said.get("state") == "on" and "sealbus:schedule" in context["scp"] and "aut" in context, "bad_grant", "state")
    need(type(until) is int and type(when) is dict and type(do) is dict, "bad_grant", "until, when or do")
    assert type(until) is int
    assert type(when) is dict
    assert type(do) is dict
    every = when.get("every", 60)
    need(until <= made + 90 * DAY + 5 * SECOND and type(every) is int and every >= 60, "bad_grant", "floors")
    need(type(do.get("action")) is str and type(do.get("typ")) is str, "bad_grant", "action or typ")
    need(type(do.get("grants")) is list and all(type(one) is str for one in do["grants"]), "bad_grant", "grants")
    need(do.get("partition") is None, "bad_grant", "partition")
    shown = [key for key in ("text", "base64") if type(do.get(key)) is str]
    need(len(shown) == 1, "bad_grant", "body")
    granted = do["text"].encode() if shown == ["text"] else base64.b64decode(do["base64"], validate=True)
    need(shown == ["text"] or base64.b64encode(granted).decode() == do["base64"], "bad_grant", "base64")
    return name, {**do, "body": granted}, until


# ---- C2SP signed notes and checkpoints -------------------------------------------------------------------------------


class Verifier(NamedTuple):
    """A verifier key: name, key ID, type, key."""

    name: str
    key_id: bytes
    kind: int
    key: bytes


NOTE_KEY = {1: 32}
WITNESS_KEY = {4: 32, 6: 1312}
"""How long a key is, by its type."""


def read_vkey(text: str, kinds: Mapping[int, int] = NOTE_KEY) -> Verifier:
    name, identifier, encoded = text.split("+", 2)
    data = base64.b64decode(encoded, validate=True)
    need(base64.b64encode(data).decode() == encoded, "bad_root", "vkey is not canonical")
    need(name and not re.search(r"\s", name) and len(name.encode()) <= 256, "bad_root", "name of a vkey")
    need(kinds.get(data[0] if data else 0) == len(data) - 1, "bad_root", "vkey is of another type")
    need(sha256(name.encode() + b"\n" + data).digest()[:4].hex() == identifier, "bad_root", "key ID")
    return Verifier(name, bytes.fromhex(identifier), data[0], data[1:])


class Checkpoint(NamedTuple):
    """A checkpoint whose signatures hold, and the witnesses whose cosignatures do."""

    size: int
    root: bytes
    cosigners: frozenset[str] = frozenset()


class Policy(NamedTuple):
    """A policy in the form of C2SP tlog-policy: groups as name, threshold and members, in their order."""

    logs: tuple[Verifier, ...]
    witnesses: Mapping[str, Verifier]
    groups: tuple[tuple[str, int, tuple[str, ...]], ...]
    quorum: str

    def enough(self, cosigners: frozenset[str]) -> bool:
        """Whether the quorum has cosigned."""

        def witnessed(name: str) -> bool:
            for group, threshold, members in self.groups:
                if group == name:
                    return sum(map(witnessed, members)) >= threshold
            return name in cosigners

        return self.quorum == "none" or witnessed(self.quorum)


def read_policy(text: str) -> Policy:
    need(len(text.encode()) <= 262_144 and text.endswith("\n"), "bad_root", "policy: size or end")
    need(not re.search("[\x00-\x08\x0b-\x1f\x7f]", text), "bad_root", "policy: control character")
    logs: list[Verifier] = []
    witnesses: dict[str, Verifier] = {}
    groups: list[tuple[str, int, tuple[str, ...]]] = []
    quorums, defined, members_so_far = list[str](), set[str](), set[str]()
    for line in text[:-1].split("\n"):
        words = [word for word in re.split("[ \t]+", line) if word]
        if not words or words[0].startswith("#"):
            continue
        kind, count = words[0], len(words)
        need(kind in {"log", "witness", "group", "quorum"}, "bad_root", "policy: a line of no kind")
        if kind == "log":
            need(count in (2, 3) and len("".join(words[2:]).encode()) <= 2_048, "bad_root", "policy: a log")
            logs.append(read_vkey(words[1]))
            continue
        need(count > 1 and len(words[1].encode()) <= 256, "bad_root", "policy: a name")
        if kind == "quorum":
            need(count == 2 and not quorums, "bad_root", "policy: one quorum")
            need(words[1] == "none" or words[1] in defined, "bad_root", "policy: an unknown quorum")
            quorums.append(words[1])
            continue
        need(words[1] != "none" and words[1] not in defined, "bad_root", "policy: a name that is taken")
        if kind == "witness":
            need(count in (3, 4) and len("".join(words[3:]).encode()) <= 2_048, "bad_root", "policy: a witness")
            witnesses[words[1]] = read_vkey(words[2], WITNESS_KEY)
        else:
            members = words[3:]
            need(members and set(members) <= defined, "bad_root", "policy: an unknown member")
            need(
                len({*members, *members_so_far}) == len(members) + len(members_so_far),
                "bad_root",
                "policy: a member twice",
            )
            members_so_far.update(members)
            threshold = {"any": 1, "all": len(members)}.get(words[2]) or decimal(words[2])
            need(1 <= threshold <= len(members), "bad_root", "policy: a threshold")
            groups.append((words[1], threshold, tuple(members)))
        defined.add(words[1])
    need(quorums, "bad_root", "policy: no quorum")
    need(max(map(len, (logs, witnesses, groups))) <= 32, "bad_root", "policy: too many lines")
    keys = [*logs, *witnesses.values()]
    need(len({one.key for one in keys}) == len(keys), "bad_root", "policy: a key twice")
    need(len({(one.name, one.key_id) for one in keys}) == len(keys), "bad_root", "policy: a key's name and ID twice")
    return Policy(tuple(logs), witnesses, tuple(groups), quorums[0])


@lru_cache(4096)
def ed25519_ok(key: bytes, signature: bytes, text: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, text)
    except InvalidSignature:
        return False
    return True


def cosigned(key: Verifier, data: bytes, text: str) -> bool:
    """Whether `data`, a time and a signature, is a cosignature of C2SP tlog-cosignature of the checkpoint `text`."""
    time, signature = int.from_bytes(data[:8], "big"), data[8:]
    if not 0 < time < 2**63:
        return False
    if key.kind == 4:
        message = f"cosignature/v1\ntime {time}\n{text}".encode()
        return len(signature) == 64 and ed25519_ok(key.key, signature, message)
    need(text.count("\n") == 3, "bad_note", "not three lines")
    origin, size, root, _ = text.split("\n")
    names = [name.encode() for name in (key.name, origin)]
    need(all(0 < len(name) < 256 for name in names), "bad_note_signature", "a name that ML-DSA-44 cannot cosign")
    who, log = (bytes([len(name)]) + name for name in names)
    message = b"subtree/v1\n\0" + who + data[:8] + log + bytes(8) + decimal(size).to_bytes(8, "big") + canonical64(root)
    try:
        MLDSA44PublicKey.from_public_bytes(key.key).verify(signature, message)
    except InvalidSignature:
        return False
    return len(signature) == 2_420


def read_checkpoint(note: bytes, root: Root, *, logged: bool = False) -> Checkpoint:
    """The text in its one spelling, signed as `read_note` says; without cosignatures where the log has `logged` it."""
    cosigners: set[str] = set()
    lines = read_note(note, root, None if logged else cosigners)
    need(len(lines) == 3, "bad_note", "not three lines")
    need(lines[0] == root.origin, "wrong_log", "origin")
    digest = canonical64(lines[2])
    need(len(digest) == 32, "bad_note", "root hash")
    return Checkpoint(decimal(lines[1]), digest, frozenset(cosigners))


def read_last(note: bytes, root: Root) -> Checkpoint:
    """The export's own checkpoint: the quorum has cosigned it."""
    need(len(note) <= (8_192 if root.policy is None else 131_072), "bad_note", "too large")
    checkpoint = read_checkpoint(note, root)
    need(root.policy is None or root.policy.enough(checkpoint.cosigners), "no_quorum")
    return checkpoint


def check_latest(data: bytes, checkpoint: Checkpoint, root: Root) -> int:
    """A later checkpoint that has no quorum yet, shown to go on from the export's own; return how many entries follow."""
    head, _, note = data.partition(b"\n\n")
    first, *path = head.decode("ascii", "replace").split("\n")
    need(first == f"old {checkpoint.size}", "bad_note", "of another size")
    need(len(note) <= 131_072, "bad_note", "too large")
    later = read_checkpoint(note, root)
    need(later.size > checkpoint.size, "bad_note", "not later")
    need(root.policy is not None and not root.policy.enough(later.cosigners), "bad_note", "the quorum has cosigned it")
    nodes = [canonical64(one) for one in path]
    need(all(len(one) == 32 for one in nodes), "bad_proof", "a node is 32 bytes")
    if checkpoint.size == 0:
        need(not nodes, "bad_proof", "a node too many")
        return later.size
    before, after = roots_by_path(checkpoint.size, later.size, checkpoint.root, nodes)
    need((before, after) == (checkpoint.root, later.root), "bad_proof", "does not lead to both")
    return later.size - checkpoint.size


def roots_by_path(old: int, new: int, old_root: bytes, path: list[bytes]) -> tuple[bytes, bytes]:
    """Both roots that a consistency path gives, as PROOF and SUBPROOF of RFC 9162 section 2.1.4.1 make it."""
    nodes = list(path)

    def taken() -> bytes:
        need(nodes, "bad_proof", "a node is missing")
        return nodes.pop()

    def sub(old: int, new: int, *, whole: bool) -> tuple[bytes, bytes]:
        # From the end of the path, which is the outermost node, to its beginning.
        if old == new:
            both = old_root if whole else taken()
            return both, both
        split = 1 << ((new - 1).bit_length() - 1)
        outer = taken()
        if old <= split:
            before, after = sub(old, split, whole=whole)
            return before, node(after, outer)
        before, after = sub(old - split, new - split, whole=False)
        return node(outer, before), node(outer, after)

    roots = sub(old, new, whole=True)
    need(not nodes, "bad_proof", "a node too many")
    return roots


class RestoredStream(NamedTuple):
    """One of the other streams that were restored with the log's: its name, and the same three numbers."""

    name: str
    before: int
    created: int
    last: int


class Restored(NamedTuple):
    """What a restoration says: the stream's creation before and after, its last sequence, by whom and when.

    The second form also has the hash of a backup's manifest, and its other streams.
    """

    before: int
    created: int
    last: int
    by: str
    time: int
    manifest: str = ""
    streams: tuple[RestoredStream, ...] = ()


def read_restored(lines: list[str], root: Root) -> Restored:
    first, second = lines[0] == "sealbus.restored.v1", lines[0] == "sealbus.restored.v2"
    need((first and len(lines) == 7) or (second and 9 <= len(lines) <= 8 + 64), "bad_note", "not a restoration")
    need(is_spiffe(lines[5]), "bad_note", "by")
    before, created, last, time = (decimal(lines[i]) for i in (2, 3, 4, 6))
    manifest, streams = (lines[7], tuple(map(read_restored_stream, lines[8:]))) if second else ("", ())
    need(first or re.fullmatch("[0-9a-f]{64}", manifest), "bad_note", "manifest")
    names = [one.name for one in streams]
    need(names == sorted(set(names)), "bad_note", "streams out of order")
    need(lines[1] == root.origin, "wrong_log", "origin")
    return Restored(before, created, last, lines[5], time, manifest, streams)


def read_restored_stream(line: str) -> RestoredStream:
    row = line.split(" ")
    need(len(row) == 4 and re.fullmatch("[A-Za-z0-9_-]{1,255}", row[0]), "bad_note", "a stream")
    before, created, last = map(decimal, row[1:])
    need(before < created, "bad_note", "a stream restored before it was created")
    return RestoredStream(row[0], before, created, last)


def decimal(text: str) -> int:
    need(re.fullmatch("0|[1-9][0-9]{0,15}", text) and int(text) <= TOP, "bad_note", "number")
    return int(text)


def read_note(note: bytes, root: Root, cosigners: set[str] | None = None) -> list[str]:
    """Every byte counts: each signature line by a key of the root file, none twice. Returns the lines of the text.

    With `cosigners`, lines by witnesses of the root file's policy may stand there, too, and their names are added.
    """
    witnesses = root.policy.witnesses if root.policy is not None and cosigners is not None else {}
    names = {key: name for name, key in witnesses.items()}
    try:
        whole = note.decode()
    except UnicodeDecodeError as error:
        raise Bad("bad_note", "not UTF-8") from error
    need(whole.count("\n\n") == 1, "bad_note", "not a signed note")
    text, _, signatures = whole.partition("\n\n")
    text += "\n"
    need(signatures.endswith("\n"), "bad_note", "no signature")
    seen: set[Verifier] = set()
    for line in signatures[:-1].split("\n"):
        found = re.fullmatch("\u2014 ([^ ]+) ([A-Za-z0-9+/=]+)", line)
        need(found, "bad_note", "a line that is no signature")
        assert found is not None
        data = canonical64(found[2])
        known = [one for one in (*root.keys, *names) if one.name == found[1] and one.key_id == data[:4]]
        need(known, "untrusted_note", "signed by a key that is not in the root file")
        need(known[0] not in seen, "bad_note", "signed twice by one key")
        seen.add(known[0])
        if known[0] in names and cosigners is not None:
            need(cosigned(known[0], data[4:], text), "bad_note_signature")
            cosigners.add(names[known[0]])
            continue
        need(len(data) == 68 and ed25519_ok(known[0].key, data[4:], text.encode()), "bad_note_signature")
    need(seen.intersection(root.keys), "untrusted_note", "signed by no key of the log")
    return text[:-1].split("\n")


def canonical64(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise Bad("bad_note", "base64") from error
    need(base64.b64encode(data).decode() == text, "bad_note", "base64 is not canonical")
    return data


# ---- the root file ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Root:
    """What is known from outside of the export."""

    origin: str
    keys: tuple[Verifier, ...]
    bundles: frozenset[bytes]
    checkpoints: tuple[bytes, ...]
    trust_domain: str
    template: str
    table: Mapping[str, str]
    minters: frozenset[str]
    notaries: frozenset[str]
    policy: Policy | None = None

    def token(self, spiffe_id: str) -> str:
        for name, listed in self.table.items():
            if listed == spiffe_id:
                return name
        before, after = f"spiffe://{self.trust_domain}{self.template}".split("{name}")
        name = spiffe_id[len(before) : len(spiffe_id) - len(after)]
        fits = spiffe_id.startswith(before) and spiffe_id.endswith(after) and TOKEN.fullmatch(name)
        if fits and not name.startswith("id-") and name not in self.table:
            return name
        return "id-" + sha256(spiffe_id.encode()).hexdigest()[:32]


def read_root(data: bytes) -> Root:
    value = strict_json(data, 8)
    members = {"v", "origin", "keys", "bundles", "checkpoints", "trust_domain", "agents", "minters", "notaries"}
    version = value.get("v")
    need(type(version) is int and version in (1, 2), "bad_root", "v")
    need(set(value) == members | ({"policy"} if version == 2 else set()), "bad_root", "keys")
    agents = value["agents"]
    need(type(agents) is dict and set(agents) == {"template", "table"}, "bad_root", "agents")
    for name in ("keys", "bundles", "checkpoints", "minters", "notaries"):
        need(type(value[name]) is list and all(type(one) is str for one in value[name]), "bad_root", name)
    need(value["keys"] and value["bundles"] and value["notaries"], "bad_root", "nothing to trust")
    keys, policy = tuple(read_vkey(one) for one in value["keys"]), None
    if version == 2:
        need(type(value["policy"]) is str, "bad_root", "policy")
        policy = read_policy(value["policy"])
        need(set(policy.logs) == set(keys), "bad_root", "the policy is of other logs")
        need(
            all(f"{value['origin']}/".startswith(f"{one.name}/") for one in keys), "bad_root", "a key of another origin"
        )
    return Root(
        origin=value["origin"],
        keys=keys,
        bundles=frozenset(bytes.fromhex(one) for one in value["bundles"]),
        checkpoints=tuple(one.encode() for one in value["checkpoints"]),
        trust_domain=value["trust_domain"],
        template=agents["template"],
        table=agents["table"],
        minters=frozenset(value["minters"]),
        notaries=frozenset(value["notaries"]),
        policy=policy,
    )


# ---- section 14: the export ------------------------------------------------------------------------------------------


class Frame(NamedTuple):
    """One entry of the log, with what its digest is of."""

    kind: int
    sequence: int
    stored: int
    data: bytes


def tile_name(number: int) -> str:
    """The path of a tile's number: three digits a part, all but the last with an x before them."""
    parts = [f"{number % 1000:03d}"]
    while number >= 1000:
        number //= 1000
        parts.insert(0, f"x{number % 1000:03d}")
    return "/".join(parts)


def expected_files(size: int) -> set[str]:
    names = {"checkpoint"}
    names |= {f"messages/{tile_name(i)}" for i in range(-(-size // 256))}
    level, width = 0, size
    while width:
        full, rest = divmod(width, 256)
        for kind in (str(level), "entries")[: 2 if level == 0 else 1]:
            names |= {f"tile/{kind}/{tile_name(i)}" for i in range(full)}
            if rest:
                names.add(f"tile/{kind}/{tile_name(full)}.p/{rest}")
        level, width = level + 1, full
    return names


def read_frames(data: bytes) -> Iterator[Frame]:
    at = 0
    while at < len(data):
        need(len(data) - at >= 21, "bad_entry", "cut in a frame")
        kind, sequence, stored, length = struct.unpack_from(">BQQI", data, at)
        at += 21
        need(length <= len(data) - at, "bad_entry", "cut in a frame")
        need(sequence <= TOP and stored <= TOP and kind <= 6, "bad_entry", "a frame of no kind")
        yield Frame(kind, sequence, stored, data[at : at + length])
        at += length


def entry_of(frame: Frame) -> bytes:
    if frame.kind == 6:
        need(frame.stored == 0 and len(frame.data) == 32, "bad_entry", "a lost message's entry")
        return frame.data
    digest = H(read_envelope(frame.data).header) if frame.kind == 1 else H(frame.data)
    return H(b"sealbus.entry.v1" + struct.pack(">BQQ", frame.kind, frame.sequence, frame.stored) + digest)


@dataclass
class Report:
    """What was found, and what was seen."""

    findings: list[tuple[str, str, str]] = field(default_factory=list)
    entries: int = 0
    records: int = 0
    decisions: int = 0
    garbage: int = 0
    following: int = 0
    decided: dict[bytes, Decided] = field(default_factory=dict)
    """The proved decisions, by their leaves."""
    grants: Grants = field(default_factory=Grants)

    def add(self, place: str, error: Bad) -> None:
        self.findings.append((place, error.code, error.words))

    def check(self, place: str, what: Callable[..., Any], *given: Any) -> Any:
        """Return what `what` returns; None, with a finding, where it refuses."""
        try:
            return what(*given)
        except Bad as error:
            self.add(place, error)
            return None


def verify(files: Mapping[str, bytes], root: Root, beside: Report | None = None) -> Report:
    """Verify an export given as its files by name; every file is looked at. What another log `beside` it shows counts."""
    report = Report()
    if "checkpoint" not in files:
        report.add("checkpoint", Bad("missing_file"))
        return report
    checkpoint: Checkpoint | None = report.check("checkpoint", read_last, files["checkpoint"], root)
    if checkpoint is None:
        return report
    if checkpoint.size > 256 * (len(files) + 1):
        report.add("checkpoint", Bad("missing_file", "far fewer files than entries"))
        return report
    frames: list[Frame | None] = []
    for number in range(-(-checkpoint.size // 256)):
        frames += tile_frames(files, f"messages/{tile_name(number)}", min(256, checkpoint.size - number * 256), report)
    leaves = check_tiles(files, frames, checkpoint.size, report)
    known = [one for one in frames if one is not None]
    latest = {"latest"} & set(files) if root.policy is not None else set()
    if latest:
        report.following = report.check("latest", check_latest, files["latest"], checkpoint, root) or 0
    check_files(files, expected_files(checkpoint.size) | latest, named_policies(known, root), report)
    check_order(known, root, report, complete=len(known) == len(frames))
    check_roots(leaves, checkpoint, root, report)
    bundles = collect_bundles(known, root, report)
    seen: set[bytes] = set()
    # As if it came before, in its order.
    earlier = beside.decided if beside is not None else {}
    decisions = {leaf: one._replace(place=one.place - len(earlier)) for leaf, one in earlier.items()}
    grants = beside.grants if beside is not None else Grants()
    for index, frame in enumerate(frames):
        if frame is not None:
            check_entry(index, frame, bundles, root, leaves, seen, decisions, grants, report)
    check_unproved(known, bundles, root, report)
    report.entries = len(known)
    report.decided, report.grants = decisions, grants
    return report


def named_policies(frames: list[Frame], root: Root) -> dict[str, set[int]]:
    """Return the files of the policy bundles that records of a notary name, each with the sizes that they say."""
    named: dict[str, set[int]] = {}
    for frame in frames:
        if frame.kind != 1:
            continue
        try:
            envelope = read_envelope(frame.data)
            if read_header(envelope.header)["iss"] not in root.notaries:
                continue
            records = read_audit_body(envelope.body)[1].records.values()
        except Bad:
            continue  # `check_entry` says what is wrong with it.
        for record in records:
            if record["k"] == "policy":
                named.setdefault(f"policies/{record['sha'].hex()}.tar.gz", set()).add(record["siz"])
    return named


def check_files(
    files: Mapping[str, bytes], expected: set[str], policies: Mapping[str, set[int]], report: Report
) -> None:
    """Exactly these and nothing else; each policy bundle is the one that its records name."""
    expected = expected | set(policies)
    for name in sorted(expected - set(files)):
        report.add(name, Bad("missing_file"))
    for name in sorted(set(files) - expected):
        report.add(name, Bad("unknown_file", "nothing covers it"))
    for name in sorted(set(policies) & set(files)):
        data = files[name]
        fits = len(data) <= 8_388_608 and name == f"policies/{H(data).hex()}.tar.gz"
        report.check(name, need, fits, "bad_policy", "not the bytes that its name is the hash of")
        report.check(name, need, not fits or policies[name] == {len(data)}, "bad_policy", "another size than recorded")


def tile_frames(files: Mapping[str, bytes], name: str, wanted: int, report: Report) -> list[Frame | None]:
    found: list[Frame | None] = []
    try:
        for frame in read_frames(files.get(name, b"")):
            need(len(found) < wanted, "bad_entry", "more than there are entries")
            found.append(frame)
        need(len(found) == wanted or name not in files, "bad_entry", "fewer than there are entries")
    except Bad as error:
        report.add(name, error)
    return found + [None] * (wanted - len(found))


def check_tiles(files: Mapping[str, bytes], frames: list[Frame | None], size: int, report: Report) -> list[bytes]:
    """Compute every tile from the messages, and compare it byte by byte; return the leaves."""
    entries: list[bytes] = []
    for frame in frames:
        try:
            entries.append(entry_of(frame) if frame is not None else bytes(32))
        except Bad as error:
            entries.append(bytes(32))
            report.add(f"#{frame.sequence if frame else 0}", error)
    leaves = [leaf_of(entry) for entry in entries]
    level, row = 0, leaves
    while row:
        above = []
        for number in range(-(-len(row) // 256)):
            part = row[number * 256 : number * 256 + 256]
            partial = f".p/{len(part)}" if len(part) < 256 else ""
            compare(files, f"tile/{level}/{tile_name(number)}{partial}", b"".join(part), report)
            if level == 0:
                bundle = b"".join(b"\x00\x20" + entry for entry in entries[number * 256 : number * 256 + 256])
                compare(files, f"tile/entries/{tile_name(number)}{partial}", bundle, report)
            if not partial:
                above.append(tree_root(part))
        level, row = level + 1, above
    return leaves


def compare(files: Mapping[str, bytes], name: str, computed: bytes, report: Report) -> None:
    if name in files and files[name] != computed:
        report.add(name, Bad("bad_tile", "not what the messages give"))


def check_order(frames: list[Frame], root: Root, report: Report, *, complete: bool) -> None:
    """A log begins with its stream's creation and what came before it; then no sequence is left out or repeated.

    A restoration sets the sequence back, and what is lost stands before one, and behind its last sequence.
    """
    following: int | None = None
    gap: Frame | None = None
    created: int | None = None
    lost: list[int] = []
    for index, frame in enumerate(frames):
        place = f"#{frame.sequence}"
        if frame.kind == 3:
            created = frame.stored
        if frame.kind == 5:
            restored: Restored | None = report.check(place, restored_at, frame, root)
            if restored is None:
                continue
            if index == 0 or gap is not None or (complete and frame.sequence >= (following or 1)):
                report.add(place, Bad("bad_entry", "restored to what was not logged"))
            if created is not None and created != restored.before:
                report.add(place, Bad("bad_entry", "another stream was restored"))
            if lost:
                explained = min(lost) > restored.last
                report.add(place, Bad("lost_records" if explained else "bad_entry", f"{len(lost)} from {min(lost)} on"))
            created, lost, following = restored.created, [], frame.sequence + 1
            continue
        if frame.kind == 6:
            lost.append(frame.sequence)
        if frame.kind in (3, 4):
            need_at = (frame.kind == 3 and index == 0) or (frame.kind == 4 and index == 1 and frames[0].kind == 3)
            if not need_at or frame.sequence != 0:
                report.add(place, Bad("bad_entry", "stands only at the beginning of a log"))
            continue
        if index == 0 and complete:
            report.add(place, Bad("bad_entry", "a log begins with its stream's creation"))
        if following is not None and frame.sequence != following:
            report.add(place, Bad("bad_entry", f"where {following} is due"))
        if gap is not None and frame.kind != 6 and (frame.kind == 2 or frame.stored != gap.stored):
            report.add(place, Bad("bad_entry", "a gap has the stored time of the message after it"))
        gap = frame if frame.kind == 2 else None
        count = 1
        if frame.kind == 2:
            count = int.from_bytes(frame.data, "big")
            if len(frame.data) != 8 or not 1 <= count <= TOP:
                report.add(place, Bad("bad_entry", "a gap of no size"))
                count = 1
        if following is None and complete and frame.sequence != 1:
            report.add(place, Bad("bad_entry", "where 1 is due"))
        following = frame.sequence + count
    if lost:
        report.add(f"#{lost[0]}", Bad("bad_entry", "lost, and no restoration says why"))
    if gap is not None and complete:
        report.add(f"#{gap.sequence}", Bad("bad_entry", "nothing after a gap"))


def restored_at(frame: Frame, root: Root) -> Restored:
    restored = read_restored(read_note(frame.data, root), root)
    need(
        (restored.last, restored.time) == (frame.sequence, frame.stored), "bad_entry", "a restoration of another place"
    )
    return restored


def check_roots(leaves: list[bytes], checkpoint: Checkpoint, root: Root, report: Report) -> None:
    if tree_root(leaves) != checkpoint.root:
        report.add("checkpoint", Bad("log_mismatch", "the messages give another"))
    for note in root.checkpoints:
        held: Checkpoint | None = report.check("root file", read_checkpoint, note, root)
        if held is not None and held.size > len(leaves):
            report.add("checkpoint", Bad("rolled_back", "somebody holds a later one"))
        elif held is not None and tree_root(leaves[: held.size]) != held.root:
            report.add("checkpoint", Bad("inconsistent_log", "somebody holds another"))


def collect_bundles(frames: list[Frame], root: Root, report: Report) -> Bundles:
    bundles = Bundles()
    for frame in frames:
        if frame.kind != 1:
            continue
        try:
            envelope = read_envelope(frame.data)
            header = read_header(envelope.header)
            if header["iss"] not in root.notaries:
                continue
            records = [one for one in read_audit_body(envelope.body)[1].records.values() if one["k"] == "bundle"]
        except Bad:
            continue  # `check_entry` says what is wrong with it.
        if not records:
            continue
        place = f"#{frame.sequence}"
        if opens(frame, bundles, root) or opens(frame, pinned(records, root), root):
            for record in records:
                keys: dict[str, JwtKey] | None = report.check(place, bundle_keys, record["jwt"])
                if keys is not None:
                    bundles.add(record["dom"], record["cur"], keys)
        else:
            report.add(place, Bad("untrusted_bundle", "not vouched for by an earlier bundle, nor by the root file"))
    if not bundles.of:
        report.add("messages", Bad("no_bundle", "none that the root file leads to"))
    return bundles


def bundle_keys(jwks: bytes) -> dict[str, JwtKey]:
    try:
        return read_bundle(jwks)
    except Bad as error:
        raise Bad("bad_bundle", error.words) from error


def opens(frame: Frame, bundles: Bundles, root: Root) -> bool:
    try:
        open_record(frame.data, frame.stored, bundles, root)
    except Bad:
        return False
    return True


def pinned(records: list[dict[str, Any]], root: Root) -> Bundles:
    found = Bundles()
    for record in records:
        if record["dom"] == root.trust_domain and H(record["jwt"]) in root.bundles:
            try:
                found.add(record["dom"], 0, read_bundle(record["jwt"]))
            except Bad:
                continue
    return found


def check_unproved(frames: list[Frame], bundles: Bundles, root: Root, report: Report) -> None:
    """What is said to prove nothing does not open with the bundles of its time, or stands elsewhere as what does."""
    opening = [one for one in frames if one.kind == 0 and opens(one, bundles.current(one.stored), root)]
    if not opening:
        return
    proved = {header_hash(one) for one in frames if one.kind == 1}
    for frame in opening:
        if header_hash(frame) not in proved:
            report.add(f"#{frame.sequence}", Bad("bad_entry", "it opens with the bundles of its time"))


def header_hash(frame: Frame) -> bytes:
    try:
        return H(read_envelope(frame.data).header)
    except Bad:
        return b""


def check_entry(
    index: int,
    frame: Frame,
    bundles: Bundles,
    root: Root,
    leaves: list[bytes],
    seen: set[bytes],
    decisions: dict[bytes, Decided],
    grants: Grants,
    report: Report,
) -> None:
    place = f"#{frame.sequence}"
    if frame.kind == 0:
        report.garbage += 1
    if frame.kind == 3:
        report.check(place, need, is_name(frame.data), "bad_entry", "a stream's name")
    if frame.kind == 4:
        report.check(place, need, 1 <= len(frame.data) <= 8192, "bad_entry", "a previous checkpoint")
    if frame.kind != 1:
        return
    audit: Audit | None = report.check(place, open_record, frame.data, frame.stored, bundles, root)
    if audit is None:
        return
    for leaf, record in audit.records.items():
        report.records += leaf not in seen
        report.decisions += leaf not in seen and record["k"] == "decision"
        seen.add(leaf)
        if record["k"] == "decision":
            decided: Decided | None = report.check(place, check_decided, record, audit, frame.stored, bundles, root)
            if decided is not None:
                report.check(place, check_approvals, decided, decisions, root)
                report.check(place, grants.check, decided, root)
                if leaf not in decisions or (decisions[leaf].place < 0 and not answers(decisions[leaf], decisions)):
                    decisions[leaf] = decided._replace(place=len(decisions))
        elif record["k"] in ("bundle", "policy", "checkpoint") and audit.header["iss"] not in root.notaries:
            report.add(place, Bad("not_the_notary", f"a {record['k']} record by another"))
        elif record["k"] == "checkpoint":
            report.check(place, check_logged, record["not"], index, leaves, root)


def is_name(data: bytes) -> bool:
    return bool(re.fullmatch(rb"[A-Za-z0-9_-]{1,255}", data))


def check_logged(note: bytes, index: int, leaves: list[bytes], root: Root) -> None:
    """A checkpoint of this log that the log itself holds is of its beginning; of one of another log nothing is known."""
    if not note.startswith(root.origin.encode() + b"\n"):
        need(note.count(b"\n\n") == 1, "bad_note", "not a signed note")
        return
    checkpoint = read_checkpoint(note, root, logged=True)
    need(checkpoint.size <= index, "bad_note", "of more than had been logged")
    need(
        tree_root(leaves[: checkpoint.size]) == checkpoint.root,
        "inconsistent_log",
        "a checkpoint in the log is of another",
    )


def read_folder(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        for path in folder.rglob("*")
        if path.is_symlink() or not path.is_dir()
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Verify an export of a sealbus audit log.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument(
        "--beside",
        type=Path,
        nargs=2,
        action="append",
        default=[],
        metavar=("FOLDER", "ROOT"),
        help="the log of another cell; may be repeated",
    )
    given = parser.parse_args(arguments)
    exports: list[tuple[Mapping[str, bytes], Root]] = []
    for folder, file in [*given.beside, (given.folder, given.root)]:
        try:
            exports.append((read_folder(folder), read_root(file.read_bytes())))
        except (Bad, ValueError, OSError) as error:
            print(f"root file: {error}", file=sys.stderr)  # noqa: T201
            return 4
    if len({root.origin for _, root in exports}) < len(exports):
        print("--beside is for another log", file=sys.stderr)  # noqa: T201
        return 2
    reports = verify_together(exports)
    for report in reports:
        show(report)
    return 4 if any(report.findings for report in reports) else 0


def verify_together(exports: Sequence[tuple[Mapping[str, bytes], Root]]) -> list[Report]:
    """Verify several logs as one set: what each shows counts for every other, as if it came before."""
    alone = [verify(files, root) for files, root in exports]
    if len(exports) == 1:
        return alone
    return [
        verify(files, root, shown_by(alone[:number] + alone[number + 1 :], root))
        for number, (files, root) in enumerate(exports)
    ]


def shown_by(reports: list[Report], root: Root) -> Report:
    """Return what these logs show one after the other, to a log with this root."""
    shown = Report()
    for report in reports:
        for leaf, one in report.decided.items():
            shown.decided.setdefault(leaf, one._replace(place=len(shown.decided)))
            if one.context is not None and one.record["alw"] and not one.context["sid"].startswith("standing-"):
                shown.grants.take(one, one.context, root)
    return shown


def show(report: Report) -> None:
    for place, code, words in report.findings:
        print(f"{ascii(place)[1:-1]} {code} {words}".rstrip())  # noqa: T201
    print(  # noqa: T201
        f"{report.entries} entries, {report.records} records, {report.decisions} decisions, "
        f"{report.garbage} messages that prove nothing, {report.following} entries follow without a quorum: "
        f"{len(report.findings)} findings"
    )


if __name__ == "__main__":
    sys.exit(main())
