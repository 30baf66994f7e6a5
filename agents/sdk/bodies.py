"""Bodies as typed values: pydantic models as JSON by default, msgpack if requested, bytes as they are."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from functools import lru_cache
from typing import Generic, Never, Protocol, TypeVar, cast

import pydantic

from sealbus.bus.sending.message import Content
from sealbus.envelopes.encoding.codec import Value, decode, encode
from sealbus.envelopes.errors import BadBody, Code, EnvelopeError, HandlingError, SealError
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.message.kinds import Kind

T = TypeVar("T")
Req_contra = TypeVar("Req_contra", contravariant=True)
Given_co = TypeVar("Given_co", covariant=True)

JSON = "application/json"
MSGPACK = "application/msgpack"
"""Bodies of this type are in the canonical encoding of SPEC.md section 1: no floats, no nil."""
BODY_ITEMS = 4_096
"""Most items of an array, and entries of a map, in a msgpack body: a bound on what a hostile body makes us allocate."""

OCTETS = "application/octet-stream"


class TypedAction(Protocol[Req_contra, Given_co]):
    """An action with declared types: a declared handler (`sealbus.agents.sdk.agent`).

    To be called it returns an `Awaitable[Answer]`, to be streamed an `AsyncIterator[Chunk]`.
    """

    @property
    def action(self) -> str:
        """`<agent>.<verb>`, or the action of an own subject."""

    @property
    def kind(self) -> Kind | None:
        """The kind of message that requests the action; absent for an own subject."""

    @property
    def gives(self) -> Body[object]:
        """The type of its answer, or of each chunk."""

    def __call__(self, body: Req_contra, context: Never, /) -> Given_co:
        """Handle a body; the type of the context does not matter here."""


class Body(Generic[T]):
    """A codec of bodies of one type: a pydantic model, any other type that pydantic can adapt, `bytes`, or `None`."""

    def __init__(self, of: type[T]) -> None:
        self.type = of
        self._raw = of is bytes
        self._adapter: pydantic.TypeAdapter[T] | None = None if self._raw else pydantic.TypeAdapter(of)

    def decode(self, body: bytes, typ: str) -> T:
        """Return the typed body (step 14); raises `BadBody` for another media type or a value that does not fit."""
        if self._adapter is None:
            if typ != OCTETS:
                raise BadBody("expected application/octet-stream")
            return cast("T", body)  # T is bytes exactly if there is no adapter
        try:
            if typ == JSON:
                return self._adapter.validate_json(body)
            if typ == MSGPACK:
                return self._adapter.validate_python(_unpacked(body))
        except pydantic.ValidationError as error:
            # The text of the error quotes the payload: only the place of the error may be shown.
            raise BadBody("; ".join(_describe_misfits(error))) from None
        except EnvelopeError as error:
            raise BadBody("not canonical msgpack") from error
        raise BadBody("media type not known")

    def together(self, parts: Sequence[Content]) -> T:
        """Return the parts of a result as one list of this type; raise `HandlingError` `bad_result` if they do not fit."""
        if self._adapter is None:
            raise HandlingError(Code.BAD_RESULT, "a result in parts is a list of them")
        any_value: Body[object] = body_of(object)
        values = [part.body if part.typ == OCTETS else decoded(any_value, part) for part in parts]
        try:
            return self._adapter.validate_python(values)
        except pydantic.ValidationError as error:
            raise HandlingError(Code.BAD_RESULT, "the parts do not fit") from error

    def encode(self, value: object, typ: str = JSON) -> Content:
        """Return `value` encoded as `typ`; raises `HandlingError` `bad_result` for a value that the type does not allow."""
        if self._adapter is None:
            if not isinstance(value, bytes):
                raise HandlingError(Code.BAD_RESULT, "expected bytes")
            return Content(body=value, typ=OCTETS)
        try:
            valid = self._adapter.validate_python(value)
            # With warnings instead of errors, pydantic would print the payload and send the invalid value.
            if typ == MSGPACK:
                plain: Value = self._adapter.dump_python(valid, mode="json", warnings="error")
                return Content(body=encode(plain, text_bytes=DEFAULT_LIMITS.body_bytes), typ=MSGPACK)
            return Content(body=self._adapter.dump_json(valid, warnings="error"), typ=JSON)
        except (pydantic.PydanticSchemaGenerationError, SealError, ValueError, TypeError, RecursionError) as error:
            raise HandlingError(Code.BAD_RESULT, type(error).__name__) from None


def _describe_misfits(error: pydantic.ValidationError) -> Iterator[str]:
    places = {(detail["type"] == "missing", ".".join(map(str, detail["loc"])) or "body") for detail in error.errors()}
    for is_missing, verb in ((False, "does not fit at"), (True, "lacks")):
        matching = sorted(place for missing, place in places if missing is is_missing)
        if matching:
            yield f"{verb} {', '.join(matching)[:200]}"


def _unpacked(body: bytes) -> Value:
    return decode(
        body, items=BODY_ITEMS, entries=BODY_ITEMS, text_bytes=DEFAULT_LIMITS.body_bytes, negative=True, step=0
    )


def body_of(type_: type[T]) -> Body[T]:
    """Return the `Body` of a type. The last 256 are cached: to make a codec costs more than a message."""
    return cast("Body[T]", _body_of(cast("Hashable", type_)))


def decoded(gives: Body[T], answer: Content) -> T:
    """Return an answer as its type; raises `HandlingError` `bad_result` if it does not fit."""
    try:
        return gives.decode(answer.body, answer.typ)
    except BadBody as error:
        raise HandlingError(Code.BAD_RESULT, f"the answer {error.detail}") from error


@lru_cache(maxsize=256)
def _body_of(type_: Hashable) -> Body[object]:
    return Body(cast("type[object]", type_))
