"""The role `witness` of `sealbus control`: answers `add-checkpoint`, and shows the last cosigned checkpoint to monitors."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Scope

from sealbus.agents.control.witness.folder import CosignedLog, locked_folder
from sealbus.agents.control.witness.keys import load_witness_keys
from sealbus.agents.control.witness.submission import (
    SUBMISSION_BYTES,
    OldSizeDiffers,
    SubmissionRefused,
    WitnessedLog,
    open_submission,
)
from sealbus.agents.edge.http.application import Application, Methods
from sealbus.agents.edge.http.bodies import read_bytes
from sealbus.agents.edge.http.problem import HEADERS, EdgeError, problem, problem_of
from sealbus.agents.edge.http.protocol import ConnectionLimits
from sealbus.agents.edge.http.rate_limits import TokenBuckets
from sealbus.agents.edge.http.server import listening
from sealbus.agents.edge.http.tls import listener_tls
from sealbus.agents.identity.threads import in_thread
from sealbus.agents.runtime.settings.schema import WitnessTable
from sealbus.agents.runtime.settings.settings import Settings
from sealbus.bus.clocks import wall_clock
from sealbus.bus.ports import Clock
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import Code, ConfigurationError, SealbusError, StateUnavailable
from sealbus.envelopes.limits import SECOND

_logger: Final = logging.getLogger(__name__)

BODY_SECONDS: Final = 5.0
"""For a whole request body."""
_TEXT: Final = "text/plain; charset=utf-8"
_SIZE_HEADERS: Final = {**HEADERS, "content-type": "text/x.tlog.size"}
"""As a header: Starlette adds a charset to a media type of text, and clients compare the whole value."""


class WitnessRoutes:
    """The resources of a witness over `logs`. `clock` is microseconds."""

    def __init__(
        self,
        logs: Sequence[CosignedLog],
        *,
        counters: Counters,
        clock: Clock = wall_clock,
    ) -> None:
        self._logs = {cosigned.log.origin: cosigned for cosigned in logs}
        self._by_hash = {cosigned.log.origin_hash: cosigned for cosigned in logs}
        self._known = {origin: cosigned.log for origin, cosigned in self._logs.items()}
        self._counters = counters
        self._clock = clock
        self.problem = ""
        """Why nothing can be cosigned now; empty if all is well."""
        counters.gauges("sealbus_witness_cosigned_entries", ("origin",), lambda: self._gauge("size"))
        counters.gauges("sealbus_witness_cosigned_timestamp_seconds", ("origin",), lambda: self._gauge("time"))

    def routes(self) -> list[BaseRoute]:
        """Return the routes of the server."""
        return [
            Route("/add-checkpoint", Methods(POST=self.add_checkpoint)),
            Route("/{origin_hash}/checkpoint", Methods(GET=self.checkpoint)),
        ]

    async def add_checkpoint(self, request: Request) -> Response:
        """Cosign a checkpoint; raise `SubmissionRefused` or `StateUnavailable` for one that is not cosigned."""
        submission = open_submission(await read_bytes(request, SUBMISSION_BYTES, BODY_SECONDS), self._known)
        origin = submission.log.origin
        cosigned = self._logs[origin]
        try:
            async with cosigned.lock:
                lines = await in_thread(lambda: cosigned.add(submission, self._clock() // SECOND))
        except OldSizeDiffers as error:
            self._counters.add("sealbus_witness_answers_total", origin=origin, status=str(error.status))
            return Response(f"{error.size}\n", error.status, _SIZE_HEADERS)
        except SubmissionRefused as error:
            self._counters.add("sealbus_witness_answers_total", origin=origin, status=str(error.status))
            # The log's own key signed it: what is refused here may prove that the log shows two histories.
            _logger.warning(
                "%s: not cosigned (%s): size %d, root %s", origin, error.detail, submission.size, submission.root.hex()
            )
            raise
        except StateUnavailable as error:
            self.problem = error.detail
            raise
        self.problem = ""
        self._counters.add("sealbus_witness_answers_total", origin=origin, status="200")
        return Response(lines, 200, HEADERS, _TEXT)

    async def checkpoint(self, request: Request) -> Response:
        """Return the last cosigned checkpoint of a log; 404 for an unknown one, and before the first."""
        cosigned = self._by_hash.get(request.path_params["origin_hash"])
        if cosigned is None or not cosigned.note:
            raise EdgeError(Code.NOT_FOUND, 404, "no checkpoint of this log was cosigned")
        return Response(cosigned.note, 200, HEADERS, _TEXT)

    def _gauge(self, name: str) -> dict[tuple[str, ...], float]:
        values = dict[tuple[str, ...], float]()
        for origin, cosigned in self._logs.items():
            size = cosigned.checkpoint.size if cosigned.checkpoint is not None else 0
            values[(origin,)] = float(size if name == "size" else cosigned.time)
        return values


class WitnessServer:
    """A witness that listens on `port`."""

    def __init__(self, routes: WitnessRoutes, port: int) -> None:
        self.port = port
        self._routes = routes

    @property
    def problem(self) -> str:
        """Why nothing can be cosigned now; empty if all is well."""
        return self._routes.problem

    async def run(self) -> None:
        """Wait to be cancelled: requests are answered as long as the role is open."""
        await asyncio.get_running_loop().create_future()


@asynccontextmanager
async def open_witness(settings: Settings, *, counters: Counters) -> AsyncGenerator[WitnessServer, None]:
    """Open the witness of the settings: it listens while entered, and connects to nothing.

    Raises `ConfigurationError` for a missing or unusable setting, for a folder that another process uses, and for a
    damaged file in it.
    """
    table = settings.control.witness
    if table.folder is None:
        raise ConfigurationError(
            "control.witness.folder is not set: it names where the witness remembers what it cosigned"
        )
    known, signers = witnessed_logs(table), load_witness_keys(table.signing_keys)
    tls = listener_tls("control.witness", table, counters=counters)
    with locked_folder(table.folder):
        routes = WitnessRoutes([CosignedLog(log, table.folder, signers) for log in known], counters=counters)
        application = Application(
            routes.routes(),
            answer_of=_answer,
            addresses=TokenBuckets(rate=table.rate, burst=max(1, round(2 * table.rate)), entries=4_096),
            secure=tls is not None,
            counters=counters,
        )
        async with listening(
            application,
            table.address,
            setting="control.witness.address",
            limits=ConnectionLimits(),
            counters=counters,
            tls=tls,
        ) as port:
            yield WitnessServer(routes, port)


def witnessed_logs(table: WitnessTable) -> tuple[WitnessedLog, ...]:
    """Return the logs of the settings; raise `ConfigurationError` without any, or for one origin twice."""
    logs = tuple(WitnessedLog.parse(log.origin, log.keys) for log in table.logs)
    if not logs:
        raise ConfigurationError("control.witness.logs is not set: the logs whose checkpoints are cosigned")
    if len({log.origin for log in logs}) != len(logs):
        raise ConfigurationError(
            "control.witness.logs: one origin is listed twice; give a log all its keys in one entry"
        )
    return logs


def _answer(error: SealbusError, scope: Scope) -> Response:
    del scope
    if isinstance(error, SubmissionRefused):
        return problem(error.code, status=error.status, detail=f"{error.detail}.")
    return problem_of(error)
