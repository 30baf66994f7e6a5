"""The words of a model, joined to pieces that are large enough for a message each."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Final

from sealbus.agents.sdk.context import Context

PIECE: Final = 128
"""Least characters of a piece: a task has at most 2,048 parts, and a model writes more words than that."""

WordsHandler = Callable[[str, Context], AsyncGenerator[str, None]]


def in_pieces(words: WordsHandler) -> WordsHandler:
    """Return a handler body that yields the words of `words` in pieces of at least `PIECE` characters, except the last."""

    async def ask(text: str, ctx: Context) -> AsyncGenerator[str, None]:
        piece = ""
        async with aclosing(words(text, ctx)) as stream:
            async for word in stream:
                piece += word
                if len(piece) >= PIECE:
                    yield piece
                    piece = ""
        if piece:
            yield piece

    return ask
