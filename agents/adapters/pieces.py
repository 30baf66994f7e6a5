"""What a model says word by word, in pieces that are worth a message each."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Final

from sealbus.agents.sdk.context import Context

__all__ = ["PIECE", "in_pieces"]

PIECE: Final = 128
"""Characters of a piece: a task has at most 2,048 parts, and a model says more words than that."""

Saying = Callable[[str, Context], AsyncGenerator[str, None]]


def in_pieces(words: Saying) -> Saying:
    """Return a handler body that yields all that `words` yields, in pieces of at least `PIECE` but for the last."""

    async def ask(text: str, ctx: Context) -> AsyncGenerator[str, None]:
        said = ""
        async with aclosing(words(text, ctx)) as spoken:
            async for word in spoken:
                said += word
                if len(said) >= PIECE:
                    yield said
                    said = ""
        if said:
            yield said

    return ask
