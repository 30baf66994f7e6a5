"""Certificates that follow each other without anything in between, as the Workload API sends chains and bundles."""

from __future__ import annotations

from cryptography import x509

__all__ = ["MAX_CERTIFICATES", "parse_certificates"]

MAX_CERTIFICATES = 64
"""Certificates in one chain or bundle: a trust domain rotates two CAs or three at a time."""

_SEQUENCE = 0x30
_LONG_FORM = 0x80


def parse_certificates(data: bytes) -> tuple[x509.Certificate, ...]:
    """Return the certificates whose DER encodings `data` joins, 1 to 64; raise `ValueError` for anything else.

    Nothing about the certificates is verified.
    """
    certificates: list[x509.Certificate] = []
    position = 0
    while position < len(data):
        if len(certificates) == MAX_CERTIFICATES:
            raise ValueError(f"over {MAX_CERTIFICATES} certificates")
        end = _end_of_sequence(data, position)
        certificates.append(x509.load_der_x509_certificate(data[position:end]))
        position = end
    if not certificates:
        raise ValueError("no certificate")
    return tuple(certificates)


def _end_of_sequence(data: bytes, start: int) -> int:
    """Return where the DER SEQUENCE at `start` ends (X.690 section 8.1.3: definite lengths)."""
    if len(data) < start + 2 or data[start] != _SEQUENCE:
        raise ValueError("not a certificate")
    length, position = data[start + 1], start + 2
    if length >= _LONG_FORM:
        octets = length - _LONG_FORM
        if not 1 <= octets <= 3:
            raise ValueError("not a certificate's length")
        length, position = int.from_bytes(data[position : position + octets], "big"), position + octets
    if position + length > len(data):
        raise ValueError("a certificate is cut off")
    return position + length
