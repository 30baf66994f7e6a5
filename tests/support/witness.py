"""Sees what a process says of itself: every log record of every logger, and every exception that passes through sealbus."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import threading
from collections.abc import Generator, Iterator
from contextvars import ContextVar
from types import FrameType
from typing import Any
from unittest.mock import patch

from support.secret_search import Group, Place

import sealbus.agents
import sealbus.bus
import sealbus.envelopes
import sealbus.policies
from sealbus.agents.edge.foreign_logs import _Places
from sealbus.envelopes.errors import SealbusError

__all__ = ["Witness", "as_a_browser"]

_CODE = tuple(package.__path__[0] for package in (sealbus.agents, sealbus.bus, sealbus.envelopes, sealbus.policies))

_browser: ContextVar[bool] = ContextVar("browser", default=False)
"""Whether what runs now plays a browser, whose own log (of where it was sent, with which code) is no part of sealbus."""

_BROWSER_LOGS = ("httpx2", "httpcore2")
_NO_ERRORS = (StopIteration, StopAsyncIteration, GeneratorExit)
"""How coroutines and generators return: what is in them is a result, and nobody is told of them."""
_RECORD = frozenset(vars(logging.makeLogRecord({})))


@contextlib.contextmanager
def as_a_browser() -> Generator[None, None, None]:
    """Leave out what the HTTP client logs here: it plays the user's browser."""
    token = _browser.set(True)
    try:
        yield
    finally:
        _browser.reset(token)


class Witness(logging.Handler):
    """Enter with `with`; `places()` are what was seen, one place for each logger and for each class of error."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self._logs: dict[str, list[str]] = {}
        self._errors: dict[tuple[Group, str], dict[str, None]] = {}
        self._output = io.StringIO()

    @property
    def loggers(self) -> set[str]:
        """The names of the loggers that said something."""
        return set(self._logs)

    @contextlib.contextmanager
    def watching(self) -> Generator[None, None, None]:
        """See everything until the end, whatever levels, handlers and propagation are configured meanwhile."""
        tracing, threads = sys.gettrace(), threading.gettrace()
        with (
            contextlib.redirect_stdout(self._output),
            contextlib.redirect_stderr(self._output),
            patch.object(logging.Logger, "isEnabledFor", lambda _, level: level >= logging.DEBUG),
            patch.object(logging.Logger, "getEffectiveLevel", lambda _: logging.DEBUG),
            # Servers ask this to know whether anybody reads their access log.
            patch.object(logging.Logger, "hasHandlers", lambda _: True),
            # A bound method would not be given the logger.
            patch.object(logging.Logger, "handle", lambda logger, record: self._hear(logger, record)),  # noqa: PLW0108
        ):
            threading.settrace(self._call)
            sys.settrace(self._call)
            try:
                yield
            finally:
                sys.settrace(tracing)
                threading.settrace(threads)

    def _hear(self, logger: logging.Logger, record: logging.LogRecord) -> None:
        """Hear a record; of a package that was quietened, what `quieten` leaves of it, which nothing can undo by a level."""
        at: logging.Logger | None = logger
        while at is not None:
            for handler in at.handlers:
                if isinstance(handler, _Places) and not at.propagate:
                    handler.emit(record)
                    return
            at = at.parent
        self.emit(record)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep all of a record: its text, its arguments, its exception, and what else was given with it."""
        if _browser.get() and record.name.startswith(_BROWSER_LOGS):
            return
        more = {name: value for name, value in vars(record).items() if name not in _RECORD}
        self._logs.setdefault(record.name, []).append(f"{self.format(record)} {record.args!r} {more!r}")

    def places(self) -> Iterator[Place]:
        """Return what was seen."""
        for name, lines in self._logs.items():
            yield Place(Group.LOGS, name, "\n".join(lines).encode())
        for (group, name), texts in self._errors.items():
            yield Place(group, name, "\n".join(texts).encode("utf-8", "backslashreplace"))
        yield Place(Group.OUTPUT, "of the process", self._output.getvalue().encode())

    def _call(self, frame: FrameType, event: str, argument: object) -> Any:
        """Ask to hear of exceptions in the frames of sealbus, and of nothing else."""
        if frame.f_code.co_filename.startswith(_CODE):
            frame.f_trace_lines = False
            return self._event
        return None

    def _event(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "exception" and not issubclass(argument[0], _NO_ERRORS):
            error: BaseException | None = argument[1]
            while error is not None:
                self._seen(error)
                error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        return self._event

    def _seen(self, error: BaseException) -> None:
        text = f"{error} {error!r} {error.args!r} {getattr(error, '__notes__', ())!r}"
        own = isinstance(error, SealbusError)
        if own:
            text += f" {vars(error)!r}"
        name = f"{type(error).__module__}.{type(error).__qualname__}"
        for group in (Group.ERRORS, Group.OWN_ERRORS) if own else (Group.ERRORS,):
            self._errors.setdefault((group, name), {})[text] = None
