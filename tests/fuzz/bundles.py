"""Targets: policy bundles, their archives, manifests and signatures."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from contextlib import suppress
from functools import cache

from fuzz.targets import Target, check_refusal
from support.envelopes import signing_key

from sealbus.envelopes.trust.keys import key_id
from sealbus.policies.bundle.archive import pack_archive, unpack_archive
from sealbus.policies.bundle.format import (
    MANIFEST,
    SIGNATURES,
    Manifest,
    merge_data,
    pack_bundle,
    parse_manifest,
    read_bundle,
)
from sealbus.policies.bundle.revocations import issued_before, revocations_of, revokers_of
from sealbus.policies.bundle.signing import BundleVerifier, sign_bundle
from sealbus.policies.decision.documents import parse_data
from sealbus.policies.lint.module import PolicyRefused

_SCOPE = "policy"


@cache
def _verifier() -> BundleVerifier:
    key = signing_key("policy").public
    return BundleVerifier(keys={key_id(key): key}, scope=_SCOPE)


@cache
def bundle() -> Mapping[str, bytes]:
    """Return the files of a signed bundle."""
    raw = pack_bundle(
        {"authz.rego": b"package sealbus.authz\n"},
        {"sealbus": {"registry": {"issued_before": {"spiffe://example.org/edge": 7}}}},
        Manifest(revision="one", serial=7),
    )
    return unpack_archive(sign_bundle(read_bundle(raw), signing_key("policy"), scope=_SCOPE).raw)


def packed(data: bytes) -> None:
    """The file of a bundle."""
    for read in (read_bundle, _verifier().verify):
        try:
            read(data)
        except PolicyRefused as error:
            _check_problems(error)


def _check_problems(error: PolicyRefused) -> None:
    for line in str(error).splitlines() or [""]:
        check_refusal(ValueError(line))


def archive(data: bytes) -> None:
    """The tar in the file."""
    try:
        contents = unpack_archive(gzip.compress(data, compresslevel=1, mtime=0))
    except PolicyRefused as error:
        _check_problems(error)
        return
    with suppress(PolicyRefused, UnicodeEncodeError, ValueError):
        assert unpack_archive(pack_archive(contents)) == contents
    packed(pack_archive(bundle()))


def _with(path: str, data: bytes) -> None:
    packed(pack_archive({**bundle(), path: data}))


def manifest(data: bytes) -> None:
    """A manifest."""
    try:
        parse_manifest(data)
    except PolicyRefused as error:
        _check_problems(error)
    _with(MANIFEST, data)


def signatures(data: bytes) -> None:
    """The file with the signature."""
    _with(SIGNATURES, data)


def document(data: bytes) -> None:
    """A data document, and the revocations in it."""
    try:
        merge_data({}, "one/data.json", data)
    except PolicyRefused as error:
        _check_problems(error)
    with suppress(ValueError):
        issued_before(parse_data(data))
    for part in ("revocations", "policy"):
        try:
            read = read_bundle(pack_archive({"data.json": data, MANIFEST: b'{"revision":"one"}'}))
            (revocations_of if part == "revocations" else revokers_of)(read)
        except PolicyRefused as error:
            _check_problems(error)


def module(data: bytes) -> None:
    """A Rego module in a bundle."""
    _with("more.rego", data)


TARGETS: Mapping[str, Target] = {
    "packed": packed,
    "archive": archive,
    "manifest": manifest,
    "signatures": signatures,
    "document": document,
    "module": module,
}
