"""Logging in by an nkey: the signature over the nonce, base64, and nothing that shows the key."""

from __future__ import annotations

import base64

from sealbus.bus.nats.connection.options import NkeyLogin


def test_the_nonce_is_signed_as_it_came() -> None:
    signed: list[bytes] = []

    def sign(data: bytes) -> bytes:
        signed.append(data)
        return b"\xff" * 64

    login = NkeyLogin(public="UABC", sign=sign)
    assert base64.b64decode(login.signature("nonce"), validate=True) == b"\xff" * 64
    assert signed == [b"nonce"]
    assert "sign" not in repr(login)
