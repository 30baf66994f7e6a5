"""Revocations: by time in the policy's data, and of users, sessions and clients in a part of their own."""

from __future__ import annotations

import pytest
from support.policies import bundle, signing_key

from sealbus.envelopes.encoding.strict_json import Json
from sealbus.envelopes.trust.keys import key_id, public_pem
from sealbus.envelopes.trust.spiffe_id import SpiffeId
from sealbus.policies.bundle.check import check_bundle
from sealbus.policies.bundle.format import Bundle, Manifest, pack_bundle, read_bundle
from sealbus.policies.bundle.revocations import (
    NONE_REVOKED,
    REVOCATIONS_ROOT,
    Revocations,
    check_revocations,
    issued_before,
    revocations_of,
    revokers_of,
)
from sealbus.policies.lint.module import PolicyRefused


def data(document: Json) -> dict[str, Json]:
    return {"sealbus": {"registry": {"issued_before": document}}}


def test_times_by_id() -> None:
    found = issued_before(data({"spiffe://example.org/agent/a": 1_795_528_800_000_000}))
    assert found == {SpiffeId("spiffe://example.org/agent/a"): 1_795_528_800_000_000}


def test_each_counts_and_from_the_first_microsecond_on() -> None:
    found = issued_before(data({f"spiffe://example.org/agent/{name}": at for at, name in enumerate("abc")}))
    assert sorted(found.values()) == [0, 1, 2]


@pytest.mark.parametrize(
    "without",
    [
        {},
        {"sealbus": {}},
        {"sealbus": {"registry": {"users": {}}}},
        {"sealbus": {"registry": {"issued_befores": {"x": 1}, "issued": {"x": 1}, "ISSUED_BEFORE": {"x": 1}}}},
    ],
)
def test_none(without: dict[str, Json]) -> None:
    assert issued_before(without) == {}


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ({"sealbus": []}, "not an object"),
        ({"sealbus": {"registry": 1}}, "not an object"),
        (data([]), "not an object"),
        (data({"spiffe://example.org/agent/a": "2026-11-24T00:00:00Z"}), "microseconds"),
        (data({"spiffe://example.org/agent/a": True}), "microseconds"),
        (data({"spiffe://example.org/agent/a": -1}), "microseconds"),
        (data({"agent/a": 1}), "not a SPIFFE ID"),
    ],
)
def test_what_cannot_be_understood_is_no_policy(document: dict[str, Json], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        issued_before(document)
    with pytest.raises(PolicyRefused, match=r"data\.json: .*\[revocation\]"):
        check_bundle(bundle(data=document))


ISSUER = "https://idp.example"
KEY = signing_key()


def part(
    document: Json, *, serial: int = 7, roots: tuple[str, ...] = (REVOCATIONS_ROOT,), rego: bool = False
) -> Bundle:
    modules = {"a.rego": b"package sealbus.revocations\n"} if rego else {}
    whole: dict[str, Json] = {"sealbus": {"revocations": document}}
    return read_bundle(pack_bundle(modules, whole, Manifest(revision="r", roots=roots, serial=serial)))


def reason(found: Revocations, **asked: object) -> str | None:
    known: dict[str, object] = {"issuer": ISSUER, "user": "alice", "session": "s-1", "client": "web", "login": 100}
    return found.reason(**{**known, **asked})  # type: ignore[arg-type]  # texts and a time


def test_each_of_each_issuer_counts() -> None:
    other = "https://other.example"
    found = revocations_of(
        part({"sessions": {ISSUER: {"a": 0, "b": 1}, other: {"c": 2}}, "users": {other: {"alice": 0}}})
    )
    assert found.sessions == {(ISSUER, "a"), (ISSUER, "b"), (other, "c")}
    assert found.users == {(other, "alice"): 0}


@pytest.mark.parametrize("kind", ["users", "sessions", "clients"])
def test_one_of_any_kind_is_something_to_ask_for(kind: str) -> None:
    assert revocations_of(part({kind: {ISSUER: {"a": 1}}}))
    assert not revocations_of(part({kind: {ISSUER: {}}}))


def test_who_is_revoked_is_so_by_issuer_and_id() -> None:
    found = revocations_of(
        part({"users": {ISSUER: {"alice": 99}}, "sessions": {ISSUER: {"s-2": 1}}, "clients": {ISSUER: {"kiosk": 1}}})
    )
    assert found
    assert found.revision == "revocations-7"
    assert reason(found) is None
    assert reason(found, login=99) == "revoked_user"
    assert reason(found, login=0) == "revoked_user"
    assert reason(found, session="s-2") == "revoked_session"
    assert reason(found, client="kiosk") == "revoked_client"
    assert reason(found, user="bob", login=0) is None
    for one in ({"login": 0}, {"session": "s-2"}, {"client": "kiosk"}):
        assert reason(found, issuer="https://other.example", **one) is None


@pytest.mark.parametrize("document", [{}, {"users": {}}, {"sessions": {ISSUER: {}}}])
def test_nobody_may_be_revoked(document: Json) -> None:
    found = revocations_of(part(document))
    assert not found
    assert reason(found, login=0) is None
    assert not NONE_REVOKED


@pytest.mark.parametrize(
    "wrong",
    [
        part([]),
        part({"agents": {}}),
        part({"users": []}),
        part({"users": {ISSUER: ["alice"]}}),
        part({"users": {ISSUER: {"alice": "now"}}}),
        part({"users": {ISSUER: {"alice": "now", "bob": 1}}}),
        part({"users": {ISSUER: {"alice": 1, "bob": "now"}}}),
        part({"users": {ISSUER: {"alice": 1}, "https://other.example": {"bob": "now"}}}),
        part({"users": {"https://other.example": {"bob": "now"}, ISSUER: {"alice": 1}}}),
        part({"users": {ISSUER: {"alice": True}}}),
        part({"users": {ISSUER: {"alice": -1}}}),
        part({}, roots=("sealbus",)),
        part({}, roots=(REVOCATIONS_ROOT, "other")),
        part({}, rego=True),
        read_bundle(pack_bundle({}, {}, Manifest(revision="r", roots=(REVOCATIONS_ROOT,)))),
        read_bundle(
            pack_bundle(
                {},
                {"sealbus": {"revocations": {}, "registry": {}}},
                Manifest(revision="r", roots=(REVOCATIONS_ROOT,)),
            )
        ),
    ],
)
def test_what_could_revoke_nothing_by_being_misread_is_refused(wrong: Bundle) -> None:
    with pytest.raises(PolicyRefused, match=r"\[revocations\]"):
        check_revocations(wrong)


def named(document: Json) -> Bundle:
    return bundle(data={"sealbus": {"platform": {"revokers": document}}})


def test_the_platform_names_who_signs_them() -> None:
    ours = {key_id(KEY.public): public_pem(KEY.public)}
    assert revokers_of(named(dict(ours))) == {key_id(KEY.public): KEY.public}
    assert revokers_of(bundle()) == {}
    for name in ("revokerss", "revoke", "REVOKERS"):
        assert revokers_of(bundle(data={"sealbus": {"platform": {name: dict(ours)}}})) == {}
    many = {key_id(key.public): public_pem(key.public) for key in (signing_key() for _ in range(16))}
    assert revokers_of(named(dict(many))).keys() == many.keys()
    assert revokers_of(bundle(data={"sealbus": {"platform": {}}})) == {}


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ([], "not an object"),
        ("key", "not an object"),
        ({f"{number}": "key" for number in range(17)}, "at most 16"),
        ({"key": 7}, "revokers"),
        ({"key": "no key"}, "revokers"),
        ({"another": public_pem(KEY.public)}, "under another id"),
        ({key_id(KEY.public) + "0": public_pem(KEY.public)}, "under another id"),
        ({key_id(KEY.public)[:-1]: public_pem(KEY.public)}, "under another id"),
        ({key_id(KEY.public).upper(): public_pem(KEY.public)}, "under another id"),
        ({key_id(KEY.public): public_pem(KEY.public), "zz": "no key"}, "revokers"),
        ({"00": "no key", key_id(KEY.public): public_pem(KEY.public)}, "revokers"),
    ],
)
def test_a_misnamed_signer_is_refused(document: Json, why: str) -> None:
    with pytest.raises(PolicyRefused, match=why):
        revokers_of(named(document))
