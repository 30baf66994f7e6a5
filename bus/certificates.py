"""Read certificates of others: whatever the package raises for bytes that are none is one error here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

__all__ = ["reading_certificate"]


@contextmanager
def reading_certificate() -> Iterator[None]:
    """Turn the errors of the package `cryptography` for a malformed certificate or part of one into `ValueError`.

    The package reads extensions and keys only when they are asked for, and has errors of its own for some faults. A missing
    extension is no fault: `ExtensionNotFound` passes.
    """
    try:
        yield
    except (x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise ValueError("a certificate is malformed") from error
    except (TypeError, UnsupportedAlgorithm) as error:
        raise ValueError("a certificate with a key that is not supported") from error
