from __future__ import annotations

import pytest
from support.x509 import ThrowawayCa

from sealbus.agents.identity.x509_svid import MAX_CERTIFICATES, parse_certificates

CA = ThrowawayCa("example.org").issue("spiffe://example.org/agent/a").cert_der


def test_joined_certificates_come_apart() -> None:
    """One, two, and as many as are allowed."""
    for count in (1, 2, MAX_CERTIFICATES):
        assert len(parse_certificates(CA * count)) == count


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x30",
        b"\x31" + CA[1:],
        CA[:-1],
        CA + b"\x00",
        CA + CA[:1],
        b"\x30\x80" + CA[2:],
        b"\x30\x84\x00\x00" + CA[2:],
        b"\x30\x00",
        CA * (MAX_CERTIFICATES + 1),
        b"-----BEGIN CERTIFICATE-----",
    ],
    ids=["empty", "lone tag", "tag", "cut", "trailing", "trailing tag", "indefinite", "long", "hollow", "many", "pem"],
)
def test_anything_else_is_refused(data: bytes) -> None:
    """Only `ValueError`, whatever the bytes."""
    with pytest.raises(ValueError):  # noqa: PT011
        parse_certificates(data)


def test_any_prefix_is_refused() -> None:
    """However a response is cut, nothing but `ValueError`."""
    for length in range(len(CA)):
        with pytest.raises(ValueError):  # noqa: PT011
            parse_certificates(CA[:length])
