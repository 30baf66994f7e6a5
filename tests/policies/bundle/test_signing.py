"""Signed bundles: what is signed here OPA takes, what OPA signs is taken here, and nothing else is by either."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from support.opa import OpaServer, require_opa
from support.policies import ALLOW, SCRIPTED, bundle, signing_key

from sealbus.envelopes.encoding.strict_json import Json
from sealbus.envelopes.trust.keys import SigningKey, key_id, public_pem
from sealbus.policies.bundle.archive import pack_archive, unpack_archive
from sealbus.policies.bundle.format import Bundle
from sealbus.policies.bundle.signing import BundleVerifier, newer, sign_bundle
from sealbus.policies.decision.documents import canonical
from sealbus.policies.lint.module import PolicyRefused

KEY = signing_key()
VERIFIER = BundleVerifier(keys={key_id(KEY.public): KEY.public}, scope="team")
SIGNED = sign_bundle(bundle(serial=1), KEY, scope="team")

STRANGE: dict[str, Json] = {
    "answers": {"yes": ALLOW},
    "texts": [
        "ü",
        "日本",
        "\u2028\u2029",
        "😀",
        "<&>",
        '"\\/',
        "\b\f\n\r\t\x00\x1f\x7f",
        "\ufb33",
        "\ue000",
        "\U00010000",
    ],
    "numbers": [0, -1, 9_007_199_254_740_991, -9_007_199_254_740_991],
    "names": {"\u2028": 1, "ü": 2, "z": 3, "Z": 4, "\ufb33": 5, "😀": 6, "\ue000": 7, "": 8, "<": 9, "\x01": 10},
    "rest": [True, False, None, {}, []],
}


def changed(path: str, content: bytes | None, signed: Bundle = SIGNED) -> bytes:
    contents = unpack_archive(signed.raw)
    if content is None:
        del contents[path]
    else:
        contents[path] = content
    return pack_archive(contents)


def with_token(header: Json, payload: Json, key: SigningKey = KEY) -> bytes:
    def part(value: Json) -> bytes:
        return base64.urlsafe_b64encode(canonical(value)).rstrip(b"=")

    signing = part(header) + b"." + part(payload)
    token = signing + b"." + base64.urlsafe_b64encode(key.sign(signing)).rstrip(b"=")
    return changed(".signatures.json", canonical({"signatures": [token.decode()]}))


def payload_of(signed: Bundle = SIGNED) -> dict[str, Json]:
    [token] = json.loads(unpack_archive(signed.raw)[".signatures.json"])["signatures"]
    middle = token.split(".")[1]
    found = json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
    assert isinstance(found, dict)
    return found


HEADER: Json = {"alg": "ES256", "kid": key_id(KEY.public)}


def test_what_was_signed_verifies_and_says_by_whom() -> None:
    found = VERIFIER.verify(SIGNED.raw)
    assert found.signer == key_id(KEY.public)
    assert (found.bundle.revision, found.bundle.serial) == ("r1", 1)
    assert VERIFIER.verify(with_token(HEADER, payload_of())).signer == found.signer


def test_signing_again_takes_the_place_of_the_old_signature() -> None:
    again = sign_bundle(SIGNED, signing_key(), scope="team")
    with pytest.raises(PolicyRefused, match="may not sign"):
        VERIFIER.verify(again.raw)
    assert VERIFIER.verify(sign_bundle(again, KEY, scope="team").raw).bundle.revision == "r1"


@pytest.mark.parametrize(
    ("path", "content", "why"),
    [
        ("authz.rego", SCRIPTED.encode() + b"\n", r"authz\.rego: the file differs from the signed file"),
        ("authz.rego", None, r"authz\.rego: the signed file is missing"),
        ("more.rego", b"package more", r"more\.rego: the file was not signed"),
        ("data.json", b"{}", r"data\.json: the file differs from the signed file"),
        ("data.json", b"{", r"data\.json: not a data document"),
        (".manifest", b'{"revision":"r9"}', r"\.manifest: the file differs from the signed file"),
        (".signatures.json", None, "not signed"),
        (".signatures.json", b"{", "no valid signature"),
        (".signatures.json", b'{"signatures":[]}', "not exactly one"),
        (".signatures.json", b'{"signatures":[1]}', "not exactly one"),
        (".signatures.json", b'{"signatures":["a.b"]}', "no valid signature"),
    ],
)
def test_tampered(path: str, content: bytes | None, why: str) -> None:
    with pytest.raises(PolicyRefused, match=why):
        VERIFIER.verify(changed(path, content))


def test_the_same_data_written_otherwise_is_the_same_to_opa_and_here() -> None:
    data = json.dumps(json.loads(unpack_archive(SIGNED.raw)["data.json"]), indent=2).encode()
    assert VERIFIER.verify(changed("data.json", data)).bundle.revision == "r1"


@pytest.mark.parametrize(
    ("header", "payload", "why"),
    [
        ({"alg": "none", "kid": key_id(KEY.public)}, payload_of(), "alg is not"),
        ({"alg": "ES256", "kid": "other"}, payload_of(), "may not sign"),
        ({"alg": "ES256", "kid": 1}, payload_of(), "may not sign"),
        (HEADER, {**payload_of(), "scope": "other"}, "scope is not team"),
        (HEADER, {"files": payload_of()["files"]}, "scope is not team"),
        (HEADER, {"scope": "team"}, "no files"),
        (HEADER, {"scope": "team", "files": [1]}, "without a hash"),
        (HEADER, {"scope": "team", "files": [{"name": "a", "hash": "00", "algorithm": "MD5"}]}, "without a hash"),
        (HEADER, {"scope": "team", "files": [{"hash": "00", "algorithm": "SHA-256"}]}, "repeated name"),
        (HEADER, {"scope": "team", "files": [{"name": "a", "hash": "00", "algorithm": "SHA-256"}] * 2}, "repeated name"),
    ],
)  # fmt: skip
def test_signatures_that_say_something_else(header: Json, payload: Json, why: str) -> None:
    with pytest.raises(PolicyRefused, match=why):
        VERIFIER.verify(with_token(header, payload))


def test_a_signature_by_another_key_under_our_name() -> None:
    with pytest.raises(PolicyRefused, match="no valid signature: signature"):
        VERIFIER.verify(with_token(HEADER, payload_of(), signing_key()))


def test_without_a_name_the_key_is_ours_where_there_is_one() -> None:
    assert VERIFIER.verify(with_token({"alg": "ES256"}, payload_of())).signer == key_id(KEY.public)
    other = signing_key()
    two = BundleVerifier(keys={**VERIFIER.keys, key_id(other.public): other.public}, scope="team")
    with pytest.raises(PolicyRefused, match="may not sign"):
        two.verify(with_token({"alg": "ES256"}, payload_of()))


def test_serials_only_grow() -> None:
    newer(SIGNED, None)
    newer(SIGNED, SIGNED)
    newer(bundle(serial=2), SIGNED)
    for older in (bundle(serial=1, revision="other"), sign_bundle(SIGNED, KEY, scope="other")):
        with pytest.raises(PolicyRefused, match=r"serial 1 is not after 1.*\[serial\]"):
            newer(older, SIGNED)
    with pytest.raises(PolicyRefused, match="has no serial"):
        newer(bundle(), None)


def served(file: Path, scope: str = "team", key: SigningKey = KEY) -> bool:
    """Tell whether a real OPA starts with the bundle `file` under the verification key."""
    public = file.with_name("public.pem")
    public.write_text(public_pem(key.public), encoding="ascii")
    try:
        with OpaServer(
            "--bundle", str(file), "--verification-key", str(public), "--verification-key-id", key_id(key.public),
            "--signing-alg", "ES256", "--scope", scope,
        ):  # fmt: skip
            return True
    except AssertionError as error:
        if not str(error).startswith("opa ended at once"):
            raise
        return False


@pytest.mark.opa
def test_opa_takes_what_was_signed_here_and_no_more(tmp_path: Path) -> None:
    file = tmp_path / "b" / "bundle.tar.gz"
    file.parent.mkdir()
    strange = sign_bundle(bundle(data=STRANGE), KEY, scope="team")
    VERIFIER.verify(strange.raw)
    file.write_bytes(strange.raw)
    assert served(file)
    assert not served(file, scope="other")
    assert not served(file, key=signing_key())
    file.write_bytes(changed("authz.rego", SCRIPTED.encode() + b"\n"))
    assert not served(file)


@pytest.mark.opa
def test_every_character_is_hashed_as_opa_hashes_it(tmp_path: Path) -> None:
    characters = [chr(code) for code in range(0x20000) if not 0xD800 <= code < 0xE000]
    texts = ["".join(characters[start : start + 512]) for start in range(0, len(characters), 512)]
    # Names are in an order too: each begins with another character.
    names: Json = {text[:8]: number for number, text in enumerate(texts)}
    file = tmp_path / "b" / "bundle.tar.gz"
    file.parent.mkdir()
    texts_there: list[Json] = list(texts)
    signed = sign_bundle(bundle(data={"texts": texts_there, "names": names}), KEY, scope="team")
    VERIFIER.verify(signed.raw)
    file.write_bytes(signed.raw)
    assert served(file)


@pytest.mark.opa
def test_what_opa_signed_is_taken_here(tmp_path: Path) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    key = SigningKey(private)
    (tmp_path / "key.pem").write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (tmp_path / "claims.json").write_text('{"scope": "team"}', encoding="ascii")
    source = tmp_path / "src"
    source.mkdir()
    (source / "authz.rego").write_text(SCRIPTED, encoding="ascii")
    (source / "data.json").write_text(json.dumps(STRANGE), encoding="ascii")
    verifier = BundleVerifier(keys={key_id(key.public): key.public}, scope="team")
    for _ in range(3):  # half of OPA's signatures have their `s` in the upper half
        subprocess.run(
            [require_opa(), "build", "-b", str(source), "-r", "r1", "--signing-alg", "ES256", "--signing-key",
             str(tmp_path / "key.pem"), "--claims-file", str(tmp_path / "claims.json"), "-o", str(tmp_path / "b.tgz")],
            check=True,
        )  # fmt: skip
        found = verifier.verify((tmp_path / "b.tgz").read_bytes())
        assert found.bundle.data == STRANGE
