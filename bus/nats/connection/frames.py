"""The bytes of NATS' protocol: publish frames, raw header blocks, and the rules of subjects.

nats-py sends wildcards and empty tokens to the server unchecked. Here a subject is checked before anything is written, and no
argument of a caller can end a protocol line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from sealbus.bus.ports import Outgoing
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.limits import DEFAULT_LIMITS

_TOKEN = r"[^\x00-\x20\x7f.*>]+"
_SUBJECT = re.compile(rf"{_TOKEN}(?:\.{_TOKEN})*")
_PATTERN = re.compile(rf"(?:{_TOKEN}|\*)(?:\.(?:{_TOKEN}|\*))*(?:\.>)?|>")
_MESSAGE_ID = re.compile(r"[0-9a-f]{32}")
_HEADER_NAME = re.compile(r"[A-Za-z0-9_-]+")
_HEADER_VALUE = re.compile(r"[\x20-\x7e]*")
_STATUS = re.compile(rb"NATS/1\.0 ([0-9]{3})(?: ([^\r\n]*))?\r\n")


def check_subject(subject: str) -> None:
    """Raise `ConfigurationError` unless `subject` may be published to: tokens, no wildcard, at most 255 bytes."""
    if not _SUBJECT.fullmatch(subject) or len(subject.encode()) > DEFAULT_LIMITS.subject_bytes:
        raise ConfigurationError(f"{subject[:255]!r} is not a subject that can be published to")


def check_pattern(pattern: str) -> None:
    """Raise `ConfigurationError` unless `pattern` may be subscribed to: tokens or `*`, the last one may be `>`."""
    if not _PATTERN.fullmatch(pattern) or len(pattern.encode()) > DEFAULT_LIMITS.subject_bytes:
        raise ConfigurationError(f"{pattern[:255]!r} is not a subject that can be subscribed to")


def header_lines(message_id: str, headers: Mapping[str, str]) -> bytes:
    """Return a header block, with one `Nats-Msg-Id` line if there is a `message_id`; empty if there is no header."""
    if not message_id and not headers:
        return b""
    lines = ["NATS/1.0"]
    if message_id:
        if not _MESSAGE_ID.fullmatch(message_id):
            raise ConfigurationError("a message id is 32 lower-case hex digits")
        if not headers:
            return b"NATS/1.0\r\nNats-Msg-Id: %b\r\n\r\n" % message_id.encode()
        lines.append(f"Nats-Msg-Id: {message_id}")
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name) or name.lower() == "nats-msg-id":
            raise ConfigurationError(f"{name[:64]!r} cannot be the name of a header")
        if not _HEADER_VALUE.fullmatch(value) or value != value.strip():
            raise ConfigurationError(f"the value of header {name} is not printable ASCII without spaces at its ends")
        lines.append(f"{name}: {value}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def publish_parts(message: Outgoing, *, replied: bool) -> tuple[bytes, bytes, int]:
    """Return the parts before and after the reply subject in the frame of `message`, and the size that `max_payload` bounds.

    A frame is the two parts with the reply subject between them (empty unless `replied`), the payload and CRLF. The size
    counts header block and payload. Raises `ConfigurationError`.
    """
    name, payload, message_id, headers, _ = message
    check_subject(name)
    block = header_lines(message_id, headers)
    size = len(block) + len(payload)
    space = b" " if replied else b""
    subject = name.encode()
    if not block:
        return b"PUB %b " % subject, b"%b%d\r\n" % (space, size), size
    return b"HPUB %b " % subject, b"%b%d %d\r\n%b" % (space, len(block), size, block), size


def publish_frame(message: Outgoing, reply: str = "") -> bytes:
    """Return the frame that publishes `message`, with the reply subject `reply` if given. Raises `ConfigurationError`."""
    before, after, _ = publish_parts(message, replied=bool(reply))
    return b"".join((before, reply.encode(), after, message.payload, b"\r\n"))


def status_of(block: bytes) -> tuple[int, str]:
    """Return the status code and text of a header block that the server made; `(0, "")` if it has no status."""
    match = _STATUS.match(block)
    if match is None:
        return 0, ""
    return int(match[1]), (match[2] or b"").decode("ascii", "replace").strip()


def header_value(block: bytes, name: str) -> str:
    """Return the value of the last header `name` (case-sensitive) in `block`; empty if there is none.

    The last one counts, because nats-server adds its lines after those of a stored message, which may have the same names.
    """
    start = block.rfind(b"\r\n%b: " % name.encode())
    if start < 0:
        return ""
    start += len(name) + 4
    end = block.find(b"\r\n", start)
    return block[start : end if end >= 0 else len(block)].decode("ascii", "replace").strip()
