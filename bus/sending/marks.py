"""Marks: names in a header's `ext` that begin with `_` (SPEC.md section 3). One that is not known is ignored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sealbus.envelopes.message.header import ExtValue, Header

__all__ = ["ONE_ANSWER", "takes_one_answer"]

ONE_ANSWER: Final[Mapping[str, ExtValue]] = {"_one": True}
"""On a call whose sender takes one answer: a handler that answers in chunks is not run for it."""


def takes_one_answer(header: Header) -> bool:
    """Say whether the sender of this call takes one answer only."""
    return header.ext is not None and header.ext.get("_one") is True
