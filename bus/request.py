"""One question to a service of the broker and its answer; how the JetStream API is spoken to."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import cast

from sealbus.bus.frames import check_pattern, status_of
from sealbus.bus.jetstream_api import JsonObject
from sealbus.bus.link import Link
from sealbus.bus.publish_errors import StreamRefused
from sealbus.envelopes.errors import BusUnavailable

__all__ = ["Answer", "ask", "decoded"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the broker answered: the raw header block (empty if there was none) and the payload."""

    header_block: bytes
    payload: bytes = field(repr=False)


class _Question:
    """Waits for one answer."""

    def __init__(self, subject: str) -> None:
        self._subject = subject
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def subject_of(self, index: int) -> str:
        del index
        return self._subject

    def answered(self, index: int, block: bytes, payload: bytes) -> None:
        del index
        if not self.answer.done():
            self.answer.set_result(Answer(header_block=block, payload=payload))

    def failed(self, index: int, error: BusUnavailable) -> None:
        del index
        if not self.answer.done():
            self.answer.set_exception(error)


async def ask(link: Link, subject: str, payload: bytes, *, deadline: float) -> Answer:
    """Publish `payload` and return the answer. Raises `BusUnavailable` if none comes in `deadline` seconds."""
    check_pattern(subject)  # the API has wildcards in its own subjects, where they name a filter
    question = _Question(subject)
    token = link.replies.expect(question, 0)
    try:
        link.write(b"PUB %b %b %d\r\n%b\r\n" % (subject.encode(), link.replies.inbox + token, len(payload), payload))
        async with asyncio.timeout(deadline):
            answer = await question.answer
    except TimeoutError as error:
        raise BusUnavailable(f"{subject}: no answer within {deadline:g} s") from error
    finally:
        link.replies.forget(token)
        if not question.answer.cancel() and not question.answer.cancelled():
            question.answer.exception()
    status, _ = status_of(answer.header_block)
    if status == 503:
        raise BusUnavailable(f"{subject}: nobody answers there; is JetStream on, and does the stream exist?")
    return answer


def decoded(subject: str, answer: Answer) -> JsonObject:
    """Return the JSON object of an API answer. Raises `StreamRefused` for an error in it, `BusUnavailable` for junk."""
    try:
        found = json.loads(answer.payload)
    except ValueError as error:
        raise BusUnavailable(f"{subject}: the answer is not JSON") from error
    if not isinstance(found, dict):
        raise BusUnavailable(f"{subject}: the answer is not a JSON object")
    content = cast("JsonObject", found)
    refusal = content.get("error")
    if isinstance(refusal, dict):
        code = refusal.get("err_code", refusal.get("code", 0))
        raise StreamRefused(f"{refusal.get('description', 'refused')} ({code})", code if isinstance(code, int) else 0)
    return content
