"""What notes, checkpoints and receipts have in common: strict base64, decimal numbers, and names (C2SP signed-note)."""

from __future__ import annotations

from base64 import b64decode, b64encode

from sealbus.envelopes.errors import Code, LogError
from sealbus.envelopes.limits import DEFAULT_LIMITS

__all__ = ["base64_text", "check_key_name", "parse_base64", "parse_number"]


def base64_text(data: bytes) -> str:
    """Return the standard base64 of `data` (RFC 4648 section 4)."""
    return b64encode(data).decode("ascii")


def parse_base64(text: str, what: str) -> bytes:
    """Return what `text` is the one base64 spelling of; raise `LogError` (`bad_note`) for any other text."""
    try:
        data = b64decode(text.encode("ascii"), validate=True)
    except ValueError as error:
        raise LogError(Code.BAD_NOTE, f"{what}: not base64") from error
    if b64encode(data).decode("ascii") != text:
        raise LogError(Code.BAD_NOTE, f"{what}: not the one spelling in base64")
    return data


def parse_number(text: str, what: str) -> int:
    """Return a decimal number without leading zeroes, at most 2^53-1; raise `LogError` (`bad_note`) for other text."""
    # Sixteen digits hold 2^53-1, and no longer text is given to int().
    if not (text.isascii() and text.isdigit() and len(text) <= 16) or str(number := int(text)) != text:
        raise LogError(Code.BAD_NOTE, f"{what}: not a number")
    if number > DEFAULT_LIMITS.max_integer:
        raise LogError(Code.BAD_NOTE, f"{what}: too large")
    return number


def check_key_name(name: str) -> None:
    """Raise `LogError` (`bad_note`) unless `name` may name a key: not empty, at most 256 bytes, no space and no plus.

    No control character and no surrogate either, which a note could not hold.
    """
    if not name or len(name) > DEFAULT_LIMITS.log_name_bytes or "+" in name:
        raise LogError(Code.BAD_NOTE, "key name")
    if any(one.isspace() or one < " " or "\ud800" <= one <= "\udfff" for one in name):
        raise LogError(Code.BAD_NOTE, "key name")
    if len(name.encode()) > DEFAULT_LIMITS.log_name_bytes:
        raise LogError(Code.BAD_NOTE, "key name")
