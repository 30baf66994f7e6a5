"""Signatures of bundles in OPA's own format: `.signatures.json`, one JWT over the hash of every other file.

OPA verifies these signatures (`keys` and `bundles.<name>.signing` of its configuration). Signatures by `opa sign` with ES256
are valid here. The JWT's `scope` is the name of the bundle, so a bundle that is signed for one name is not valid under
another. Files are hashed as OPA hashes them (its v1/bundle/hash.go): Rego unchanged, JSON in a canonical form.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from sealbus.envelopes.encoding.jws import CompactJws, split_compact, verify_jws
from sealbus.envelopes.encoding.strict_json import Json, parse_object
from sealbus.envelopes.trust.keys import PublicKey, SigningKey, key_id
from sealbus.policies.bundle.archive import BUNDLE_FILES, pack_archive, unpack_archive
from sealbus.policies.bundle.format import MANIFEST, SIGNATURES, Bundle, bundle_of
from sealbus.policies.decision.documents import DataDocument, canonical, parse_data
from sealbus.policies.lint.module import PolicyRefused, Problem

_ALGORITHM: Final = "ES256"
_HASH: Final = "SHA-256"
_DEPTH: Final = 4
"""Nesting of `.signatures.json` and of the JWT's payload."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedBundle:
    """A bundle of which the key `signer` (`key_id`) has signed every file, for the verifier's scope."""

    bundle: Bundle
    signer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleVerifier:
    """A verifier that accepts only bundles signed by one of `keys` (by `key_id`) for `scope`."""

    keys: Mapping[str, PublicKey]
    scope: str

    def verify(self, raw: bytes) -> VerifiedBundle:
        """Verify the signature of the bundle `raw` and return it. This does not check whether it may be put in force.

        Raises `PolicyRefused` as `read_bundle` does. The form is `signature` if the signature is missing, is one of
        several, or is by another key or for another scope, and if a file is unsigned, changed or missing.
        """
        contents = unpack_archive(raw)
        documents: dict[str, DataDocument] = {}
        signer = self._signer_of(contents, documents)
        return VerifiedBundle(bundle=bundle_of(contents, raw, documents), signer=signer)

    def _signer_of(self, contents: Mapping[str, bytes], documents: dict[str, DataDocument]) -> str:
        """Return the id of the key that signed all `contents`; put what was parsed for that into `documents`."""
        if SIGNATURES not in contents:
            raise _refused(SIGNATURES, "the bundle is not signed")
        try:
            token = _token(contents[SIGNATURES])
            signer = self._signer(token)
            signed = self._signed(token)
        except ValueError as error:
            raise _refused(SIGNATURES, f"no valid signature: {error}") from error
        unsigned = {path: content for path, content in contents.items() if path != SIGNATURES}
        if missing := sorted(signed.keys() - unsigned.keys()):
            raise _refused(missing[0], "the signed file is missing")
        for path, content in sorted(unsigned.items()):
            if path not in signed:
                raise _refused(path, "the file was not signed")
            if signed[path] != _digest(path, content, documents):
                raise _refused(path, "the file differs from the signed file")
        return signer

    def _signer(self, token: CompactJws) -> str:
        """Return the id of the key that signed `token`. The header's claim only selects one of our own keys."""
        header = parse_object(token.header, depth=_DEPTH)
        if header.get("alg") != _ALGORITHM:
            raise ValueError(f"alg is not {_ALGORITHM}")
        signer = header.get("kid", parse_object(token.payload, depth=_DEPTH).get("keyid"))
        if signer is None and len(self.keys) == 1:
            [signer] = self.keys
        if not isinstance(signer, str) or signer not in self.keys:
            raise ValueError("its key may not sign this bundle")
        # OPA's signatures may have `s` in either half of the group order. The signed bytes count here, not the
        # signature, so a second form of a signature changes nothing.
        verify_jws(_ALGORITHM, self.keys[signer].loaded, token.signed, token.signature)
        return signer

    def _signed(self, token: CompactJws) -> dict[str, str]:
        payload = parse_object(token.payload, depth=_DEPTH)
        if payload.get("scope", "") != self.scope:
            raise ValueError(f"its scope is not {self.scope}")
        files = payload.get("files")
        if not isinstance(files, list) or len(files) > BUNDLE_FILES:
            raise ValueError("no files")
        signed: dict[str, str] = {}
        for file in files:
            name, digest = (file.get("name"), file.get("hash")) if isinstance(file, dict) else (None, None)
            if not isinstance(file, dict) or file.get("algorithm") != _HASH or not isinstance(digest, str):
                raise ValueError(f"a file without a hash by {_HASH}")
            if not isinstance(name, str) or name in signed:
                raise ValueError("a file without a name, or with a repeated name")
            signed[name.removeprefix("/")] = digest
        return signed


def sign_bundle(bundle: Bundle, key: SigningKey, *, scope: str) -> Bundle:
    """Return `bundle` signed by `key` for `scope`, without its former signature."""
    contents = unpack_archive(bundle.raw)
    contents.pop(SIGNATURES, None)
    name = key_id(key.public)
    documents: dict[str, DataDocument] = {}
    files: list[Json] = [
        {"name": path, "hash": _digest(path, content, documents), "algorithm": _HASH}
        for path, content in sorted(contents.items())
    ]
    header = canonical({"alg": _ALGORITHM, "kid": name, "typ": "JWT"})
    payload = canonical({"files": files, "scope": scope})
    signing = _base64url(header) + b"." + _base64url(payload)
    token = signing + b"." + _base64url(key.sign(signing))
    contents[SIGNATURES] = canonical({"signatures": [token.decode()]})
    return bundle_of(contents, pack_archive(contents), documents)


def newer(bundle: Bundle, current: Bundle | None) -> None:
    """Raise `PolicyRefused` unless `bundle` may follow `current`: it needs a positive serial, greater than that of `current`.

    Only `current` itself may be offered again. An older genuine bundle cannot be put in force again; its contents must be
    pushed under a new serial.
    """
    if bundle.serial < 1:
        raise _refused(MANIFEST, "the bundle has no serial: push it, or build it with --serial", form="serial")
    if current is None or bundle.raw == current.raw:
        return
    if bundle.serial <= current.serial:
        text = f"serial {bundle.serial} is not after {current.serial}, which is in force"
        raise _refused(MANIFEST, text, form="serial")


def _token(content: bytes) -> CompactJws:
    signatures = parse_object(content, depth=_DEPTH).get("signatures")
    if not isinstance(signatures, list) or len(signatures) != 1 or not isinstance(signatures[0], str):
        raise ValueError("not exactly one signature")
    return split_compact(signatures[0].encode())


def _digest(path: str, content: bytes, documents: dict[str, DataDocument]) -> str:
    """Return the hash of a file as OPA computes it; put its document into `documents` if it has one."""
    if path.rpartition("/")[2] in ("data.json", MANIFEST):
        try:
            documents[path] = parse_data(content)
        except ValueError as error:
            raise _refused(path, f"not a data document: {error}") from error
        content = _as_go_writes(documents[path])
    return sha256(content).hexdigest()


def _as_go_writes(value: Json) -> bytes:
    """Return compact JSON with sorted names as Go's encoder writes it without its escapes for HTML.

    Go also escapes U+2028 and U+2029. Numbers are whole here, so there is only one way to write them.
    """
    return canonical(value).replace("\u2028".encode(), b"\\u2028").replace("\u2029".encode(), b"\\u2029")


def _base64url(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")


def _refused(path: str, text: str, *, form: str = "signature") -> PolicyRefused:
    return PolicyRefused([Problem.of_whole(path, form, text)])
