"""What a sender declares of itself: its model, and the hashes of its prompt and tool manifest, as marks (SPEC.md section 3).

A declaration is the sender's own word, signed with each message. Nothing verifies that the model answered or the tools ran.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from types import MappingProxyType
from typing import Final, Self

from sealbus.envelopes.errors import SealError
from sealbus.envelopes.message.fields import DIGEST_BYTES, ExtValue, check_bytes, check_text

_MODEL: Final = "_mdl"
_PROMPT: Final = "_prm"
_TOOLS: Final = "_tls"
_MARKS: Final = frozenset({_MODEL, _PROMPT, _TOOLS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """The name of a model, and SHA-256 hashes of a prompt and of a tool manifest; each empty if it is not declared.

    Raises `SealError` for a name over 256 bytes or with control characters, and for a hash that is not 32 bytes.
    """

    model: str = ""
    prompt: bytes = b""
    tools: bytes = b""
    marks: Mapping[str, ExtValue] = field(init=False, repr=False, compare=False)
    """The entries of `ext` that say it, in the order of the encoding."""

    def __post_init__(self) -> None:
        check_text("model", self.model)
        marks: dict[str, ExtValue] = {_MODEL: self.model} if self.model else {}
        for name, mark, digest in (("prompt", _PROMPT, self.prompt), ("tools", _TOOLS, self.tools)):
            if digest:
                check_bytes(name, digest, least=DIGEST_BYTES, most=DIGEST_BYTES)
                marks[mark] = digest
        object.__setattr__(self, "marks", MappingProxyType(marks))

    @classmethod
    def of(cls, *, model: str = "", prompt: str | bytes = "", tools: str | bytes = "") -> Self:
        """Return the declaration of this prompt and tool manifest, hashed as they are (text as UTF-8)."""
        return cls(model=model, prompt=_hash_of("prompt", prompt), tools=_hash_of("tools", tools))

    @classmethod
    def declared_in(cls, ext: Mapping[str, ExtValue] | None) -> Declaration:
        """Return what the marks in the `ext` of a header or record declare. A mark of another form declares nothing."""
        if not ext or _MARKS.isdisjoint(ext):
            return NOTHING_DECLARED
        model = ext.get(_MODEL)
        return cls(
            model=model if isinstance(model, str) else "",
            prompt=_digest(ext.get(_PROMPT)),
            tools=_digest(ext.get(_TOOLS)),
        )


NOTHING_DECLARED: Final = Declaration()


def without_declaration(ext: Mapping[str, ExtValue] | None) -> Mapping[str, ExtValue] | None:
    """Return `ext` without what its sender declared, for another sender of the same message; None if nothing is left."""
    if not ext or _MARKS.isdisjoint(ext):
        return ext
    return {name: value for name, value in ext.items() if name not in _MARKS} or None


def _hash_of(name: str, text: str | bytes) -> bytes:
    try:
        data = text.encode() if isinstance(text, str) else text
    except UnicodeEncodeError as error:
        raise SealError(f"{name} has half a character") from error
    return sha256(data).digest() if data else b""


def _digest(value: ExtValue | None) -> bytes:
    return value if isinstance(value, bytes) and len(value) == DIGEST_BYTES else b""
