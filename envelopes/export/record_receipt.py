"""Receipts of records: one text file that proves one record and shows no other (SPEC.md section 15).

It holds the record with its evidence, the audit message's header and what vouches for it, the trust bundles that lead from
the root file to those, where all of that is in the log, that the log goes on from earlier checkpoints that the root file
holds, and the log's checkpoint as C2SP `tlog-proof`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from sealbus.envelopes.errors import Code, LogError
from sealbus.envelopes.export.shown_message import ShownMessage
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.log.lines import base64_text, parse_base64, parse_number
from sealbus.envelopes.log.receipt import Receipt, encode_receipt, parse_receipt

__all__ = ["EarlierCheckpoint", "RecordReceipt", "ShownBundle"]

_FIRST: Final = "sealbus-receipt@v1"
_BUNDLE: Final = "bundle"
_RECORD: Final = "record"
_PATH: Final = "path"
_EARLIER: Final = "earlier"


@dataclass(frozen=True, slots=True)
class ShownBundle:
    """A notary's message with `bundle` records, and the path of its entry to the checkpoint's root."""

    message: ShownMessage
    path: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class EarlierCheckpoint:
    """Size and root of the log at an earlier time, and the path that shows that the receipt's checkpoint goes on from it."""

    size: int
    root: bytes
    path: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class RecordReceipt:
    """A receipt of the right form; nothing is verified. `log` is the C2SP receipt of the entry of `message`."""

    bundles: tuple[ShownBundle, ...]
    message: ShownMessage
    log: Receipt = field(repr=False)
    earlier: tuple[EarlierCheckpoint, ...] = ()

    def encode(self) -> bytes:
        """Return the file; raise `LogError` (`bad_note`) if it is over 2 MiB."""
        lines = [_FIRST]
        for bundle in self.bundles:
            lines += [_BUNDLE, *bundle.message.lines(), " ".join([_PATH, *map(base64_text, bundle.path)])]
        lines += [_RECORD, *self.message.lines()]
        for one in self.earlier:
            lines.append(" ".join([_EARLIER, str(one.size), *map(base64_text, (one.root, *one.path))]))
        lines += ["", ""]
        data = "\n".join(lines).encode() + encode_receipt(self.log)
        if len(data) > DEFAULT_LIMITS.receipt_bytes:
            raise LogError(Code.BAD_NOTE, "receipt: too large")
        return data

    @classmethod
    def parse(cls, data: bytes) -> RecordReceipt:
        """Return the receipt that `data` is; raise `LogError` (`bad_note`) for bytes of another form."""
        if len(data) > DEFAULT_LIMITS.receipt_bytes:
            raise LogError(Code.BAD_NOTE, "receipt: too large")
        head, _, log = data.partition(b"\n\n")
        try:
            lines = head.decode("ascii").split("\n")
        except UnicodeDecodeError as error:
            raise LogError(Code.BAD_NOTE, "receipt: not ASCII") from error
        if lines.pop(0) != _FIRST:
            raise LogError(Code.BAD_NOTE, "receipt: first line")
        bundles = []
        while lines and lines[0] == _BUNDLE:
            # Without a path nothing is left for the message, which is refused.
            end = next((at for at, line in enumerate(lines) if line.split(" ")[0] == _PATH), 0)
            bundles.append(ShownBundle(ShownMessage.parse(lines[1:end]), _path(lines[end].split(" ")[1:])))
            del lines[: end + 1]
        if not lines or lines[0] != _RECORD:
            raise LogError(Code.BAD_NOTE, "receipt: no record")
        end = next((at for at, line in enumerate(lines) if line.split(" ")[0] == _EARLIER), len(lines))
        earlier = tuple(map(_earlier, lines[end:]))
        receipt = cls(tuple(bundles), ShownMessage.parse(lines[1:end]), parse_receipt(log), earlier)
        if receipt.log.index != receipt.message.index or receipt.log.extra:
            raise LogError(Code.BAD_NOTE, "receipt: the log's part is of another entry, or holds more")
        return receipt


def _earlier(line: str) -> EarlierCheckpoint:
    name, *words = line.split(" ")
    if name != _EARLIER or len(words) < 2:
        raise LogError(Code.BAD_NOTE, "receipt: no earlier checkpoint")
    return EarlierCheckpoint(parse_number(words[0], "size"), parse_base64(words[1], "root"), _path(words[2:]))


def _path(words: Sequence[str]) -> tuple[bytes, ...]:
    return tuple(parse_base64(word, "path") for word in words)
