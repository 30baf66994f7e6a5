"""The BODY of `sealbus pub` and `sealbus call`: JSON, from the command line or from standard input."""

from __future__ import annotations

import json
import sys
from typing import NoReturn

import click


def json_body(text: str) -> bytes:
    """Return the bytes of `text`, or of standard input for `-`. Raises `click.UsageError` for anything but JSON.

    Without this check an agent would refuse the body only after it was stored.
    """
    body = sys.stdin.buffer.read() if text == "-" else text.encode(errors="surrogateescape")
    try:
        json.loads(body.decode(), parse_constant=_no_json)
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"BODY is not JSON: {_reason(error)}; texts need quotes, as in '\"text\"'") from error
    return body


def _no_json(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON value")


def _reason(error: ValueError | RecursionError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at line {error.lineno}, column {error.colno}"
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8"
    return "too deep" if isinstance(error, RecursionError) else str(error)
