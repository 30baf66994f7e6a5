"""One stream of the Workload API, watched for ever: a stream that ends, for whatever reason, is opened anew."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from sealbus.agents.identity.client import RawClient, StreamCancelHandler, WorkloadApiError
from sealbus.agents.identity.endpoint import Endpoint
from sealbus.agents.identity.threads import run_in_thread

__all__ = ["Watch", "pause_after"]

R = TypeVar("R")
V = TypeVar("V")

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0
"""Seconds between attempts, doubling from the first to the longest: those of `spiffe` and of SPIRE's own clients."""

_APPLY_SECONDS = 5.0


def pause_after(attempt: int, random: Callable[[], float]) -> float:
    """Return the seconds to wait after failed attempt number `attempt`, from 1; `random` is in [0, 1)."""
    return min(_FIRST_PAUSE * 2.0 ** min(attempt - 1, 30), _LONGEST_PAUSE) * (1.0 - 0.5 * random())


class Watch(Generic[R, V]):
    """A stream's responses of type R, read in the stream's thread into values of type V, applied on the event loop.

    `open_stream` blocks and delivers; `read` judges a response and may raise, which ends the stream as a failure;
    `apply` runs on the event loop and must not raise. `failed` is told of each end. Every attempt has a client of its
    own and, because every response holds everything, starts from nothing.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        name: str,
        open_stream: Callable[[RawClient, Callable[[R], None], StreamCancelHandler], None],
        read: Callable[[R], V],
        apply: Callable[[V], None],
        failed: Callable[[Exception], None],
        random: Callable[[], float],
    ) -> None:
        self._endpoint = endpoint
        self._name = name
        self._open_stream = open_stream
        self._read = read
        self._apply = apply
        self._failed = failed
        self._random = random
        self._delivered = False

    async def run(self) -> None:
        """Watch until canceled; then the stream's thread is gone."""
        attempt = 0
        while True:
            cancel = StreamCancelHandler()
            self._delivered = False
            error: Exception
            try:
                await self._attempt(cancel)
                error = WorkloadApiError("UNAVAILABLE", "the stream ended")
            except Exception as raised:  # noqa: BLE001 - whatever it was, the next attempt is all that can help
                error = raised
            attempt = 1 if self._delivered else attempt + 1
            self._failed(error)
            await asyncio.sleep(pause_after(attempt, self._random))

    async def _attempt(self, cancel: StreamCancelHandler) -> None:
        loop = asyncio.get_running_loop()

        def deliver(response: R) -> None:
            value = self._read(response)
            applied = threading.Event()

            def on_loop() -> None:
                self._delivered = True
                try:
                    self._apply(value)
                finally:
                    applied.set()

            # Waiting for the loop keeps at most one update of this stream in memory; gRPC holds back the rest.
            loop.call_soon_threadsafe(on_loop)
            applied.wait(_APPLY_SECONDS)

        def stream() -> None:
            with contextlib.closing(RawClient(self._endpoint)) as client:
                self._open_stream(client, deliver, cancel)

        await run_in_thread(stream, name=self._name, stop=cancel.cancel)
