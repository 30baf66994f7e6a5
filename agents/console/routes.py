"""`/api`: what the console's pages ask for. Each area is asked of the policy before anything of it is read."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, cast, get_args

from starlette.requests import Request
from starlette.responses import Response

from sealbus.agents.console.agent import Area
from sealbus.agents.console.area_access import FOR, AreaAccess
from sealbus.agents.console.deciding_policies import DecidingPolicies
from sealbus.agents.console.decision_document import decision_document, explanation_document, reason_documents
from sealbus.agents.console.documents import (
    AgainDocument,
    CanceledDocument,
    DecisionDocument,
    DecisionsDocument,
    FoundDocument,
    SessionDocument,
    SourceDocument,
    WaitingDocument,
)
from sealbus.agents.console.edge_client import EdgeClient, EdgeRefused, quoted
from sealbus.agents.console.feed import DecisionFeed, FeedReader
from sealbus.agents.console.login import BrowserLogin, check_own_page
from sealbus.agents.console.pages import PAGE_HEADERS
from sealbus.agents.console.rows import shown_time
from sealbus.agents.console.search import DecisionFilter, DecisionSearch, FoundDecision, recorded_of
from sealbus.agents.console.sessions import Session
from sealbus.agents.console.views import Views
from sealbus.agents.console.what_if import MOST, answers_of
from sealbus.agents.edge.event_streams import EventStream, event
from sealbus.agents.edge.http.bodies import read_bytes
from sealbus.agents.edge.http.limits import DEFAULT_EDGE_LIMITS
from sealbus.agents.edge.http.problem import EdgeError
from sealbus.agents.evidence.lookup import identifier
from sealbus.bus.clocks import wall_clock
from sealbus.bus.inspection.tasks import TaskFilter
from sealbus.envelopes.encoding.strict_json import parse_object
from sealbus.envelopes.errors import Code, SealbusError
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.envelopes.trust.names import Names
from sealbus.policies.bundle.library import in_library
from sealbus.policies.explain.explanation import ExplainedDecision

__all__ = ["ApiRoutes"]

QUIET: Final = 15.0
"""Seconds without anything after which a stream says that it is open."""
STREAMS: Final = 512
STREAMS_OF_PERSON: Final = 8
"""In all their browsers: nobody who logs in often takes everybody's."""
_BODY_BYTES: Final = 16_384
_POLICY_BYTES: Final = 2 << 20
_DAY: Final = 86_400 * 1_000_000
_AGO: Final = re.compile("([0-9]{1,5})([mhd])")
_UNITS: Final = {"m": 60, "h": 3_600, "d": 86_400}
_WHOLE: Final = re.compile("[0-9]{1,16}")
_NO: Final = frozenset({401, 403})
_STATES: Final = re.compile(r"[a-z-]{1,32}(?:,[a-z-]{1,32}){0,8}")
_ID: Final = re.compile("[0-9a-f]{32}|[0-9a-f]{64}")
APPROVALS: Final = 5_000
"""Tasks after which a list of approvals asks the edge for no more."""
_PAGES: Final = 100
"""Pages of the edge for one list, of all queues."""
_OF_A_LIST: Final = frozenset(WaitingDocument.__annotations__)


class ApiRoutes:
    """The resources of one console."""

    def __init__(
        self,
        *,
        login: BrowserLogin,
        edge: EdgeClient,
        access: AreaAccess,
        feed: DecisionFeed,
        search: DecisionSearch,
        policies: DecidingPolicies,
        views: Views,
        names: Names,
        queues: tuple[str, ...],
    ) -> None:
        self._login = login
        self._edge = edge
        self._access = access
        self._feed = feed
        self._search = search
        self._policies = policies
        self._views = views
        self._names = names
        self._queues = queues
        self._streams: Counter[tuple[str, str]] = Counter()
        self._asking = asyncio.Lock()

    async def session(self, request: Request) -> Response:
        """`GET /api/session`: who looks. Which areas they may see is asked when they look.

        With `area`, and the `item` that is shown of it, whether they may still see that: a page asks while it shows it.
        """
        area, item = request.query_params.get("area", "live"), request.query_params.get("item", "")
        if area not in get_args(Area) or (item and not _ID.fullmatch(item)):
            raise EdgeError(Code.MALFORMED, 400, "there is no such area, or no such item of one")
        session = await self._login.session(request)
        await self._access.check(session, cast("Area", area), item)
        document: SessionDocument = {
            "user": session.name,
            "idp": session.idp,
            "trust_domain": self._names.trust_domain.name,
            "until": shown_time(session.tokens.expires) if session.tokens.refresh_token is None else None,
        }
        return _json(document)

    async def live(self, request: Request) -> Response:
        """`GET /api/live`: the decisions as they come; with `Last-Event-ID` from there on."""
        session = await self._let(request, "live")
        key = session.person
        if self._streams.total() >= STREAMS or self._streams[key] >= STREAMS_OF_PERSON:
            raise EdgeError(Code.RATE_LIMITED, 429, "too many streams are open", retry_after=int(QUIET))
        said = request.headers.get("last-event-id") or request.query_params.get("after", "")
        after = int(said) if _WHOLE.fullmatch(said) else None
        self._streams[key] += 1
        return EventStream(self._events(session, after), lambda: self._left(key), PAGE_HEADERS)

    def _left(self, key: tuple[str, str]) -> None:
        self._streams[key] -= 1
        if not self._streams[key]:
            del self._streams[key]

    async def _events(self, session: Session, after: int | None) -> AsyncGenerator[bytes, None]:
        asked = time.monotonic()
        with self._feed.reading(after) as reader:
            while True:
                data = await _next(reader)
                if data is None:
                    return
                try:
                    await self._login.renew(session)
                    if time.monotonic() - asked > FOR:
                        await self._access.check(session, "live")
                        asked = time.monotonic()
                except SealbusError as error:
                    # Who cannot be asked now has said nothing: the page comes again, and is let in when the answer is yes.
                    if isinstance(error, EdgeError | EdgeRefused) and error.status in _NO:
                        yield event("over", {"code": str(error.code), "detail": error.detail, "status": error.status})
                    return
                yield data

    async def decisions(self, request: Request) -> Response:
        """`GET /api/decisions`: decisions backwards, by filters."""
        await self._let(request, "decisions")
        query = request.query_params
        verdict = query.get("decision", "")
        wanted = DecisionFilter(
            agent=query.get("agent", ""),
            user=query.get("user", ""),
            action=query.get("action", ""),
            reason=query.get("reason", ""),
            allow={"allow": True, "deny": False}.get(verdict),
            since=_time(query.get("since", "")) or 0,
            until=_time(query.get("until", "")),
        )
        before = _number(query.get("before", ""), 0)
        page = await self._search.page(
            wanted, before=before or None, most=min(_number(query.get("limit", ""), 100), 500)
        )
        document: DecisionsDocument = {"rows": [row.document() for row in page.rows], "before": page.before}
        return _json(document)

    async def decision(self, request: Request) -> Response:
        """`GET /api/decisions/{id}`: all that is recorded about a message or request, and why it was decided so."""
        said = request.path_params["id"]
        if not _ID.fullmatch(said):
            raise EdgeError(Code.MALFORMED, 400, "an id is 32 hex digits of a message or request, or 64 of a hash")
        await self._let(request, "decision", said)
        found = await self._search.find(identifier(said))
        if not found:
            raise EdgeError(
                Code.NOT_FOUND, 404, "no decision with this id is recorded, or it is further back than was looked"
            )
        document: FoundDocument = {"decisions": [await self._document(one) for one in found]}
        return _json(document)

    async def _document(self, found: FoundDecision) -> DecisionDocument:
        entry, record = found.entry, found.entry.record
        if not isinstance(record, DecisionRecord):
            raise TypeError("not a decision")
        recorded = recorded_of(entry)
        again: AgainDocument | None = None
        looked = await self._policies.reexamined(recorded)
        if isinstance(looked.again, ExplainedDecision):
            reasons = [one.reason for one in looked.again.reasons]
            again = {
                "same": looked.again.allow == record.allow and reasons == list(record.reasons),
                "allow": looked.again.allow,
                "reasons": reasons,
                "revision": looked.again.revision,
            }
        return decision_document(
            entry,
            found.outcome,
            names=self._names,
            explanation=explanation_document(looked.told, looked.bundle),
            again=again,
            words=reason_documents(record.reasons, looked.bundle),
            logged=await self._views.logged(entry.sequence),
            receipt=f"/api/decisions/{entry.leaf.hex()}/receipt" if self._views.has_log else None,
        )

    async def receipt(self, request: Request) -> Response:
        """`GET /api/decisions/{record}/receipt`: one text file that proves the record without any other."""
        said = request.path_params["id"]
        if not _ID.fullmatch(said):
            raise EdgeError(Code.MALFORMED, 400, "a record is named by its hash, 64 hex digits")
        await self._let(request, "decision", said)
        data = await self._views.receipt(identifier(said))
        headers = {**PAGE_HEADERS, "content-disposition": f'attachment; filename="{said[:16]}.receipt"'}
        return Response(data, 200, headers, "text/plain; charset=utf-8")

    async def tasks(self, request: Request) -> Response:
        """`GET /api/tasks`."""
        await self._let(request, "tasks")
        query = request.query_params
        states = query.get("state", "")
        wanted = TaskFilter(
            states=frozenset(states.split(",")) if _STATES.fullmatch(states) else frozenset(),
            user=query.get("user") or None,
            since=_time(query.get("newer", "")) or 0,
            before=_time(query.get("older", "")),
        )
        most = min(_number(query.get("limit", ""), 50), 500)
        return _json(await self._views.tasks(query.get("agent", ""), wanted, most))

    async def cancel(self, request: Request) -> Response:
        """`POST /api/tasks/cancel`: cancel somebody's task, as the console, for the person who asks."""
        session = await self._changing(request)
        body = await _body(request)
        said = await self._edge.call(
            session.tokens.access_token,
            "cancel",
            {name: str(body.get(name, "")) for name in ("handle", "action", "reason")},
        )
        document: CanceledDocument = {"canceled": True, "message": str(said.get("message", ""))}
        return _json(document)

    async def approvals(self, request: Request) -> Response:
        """`GET /api/approvals?queue=`: what waits, as the edge lists it to this person; `more` if that is not all.

        Of each what a list shows; the rest of one is at its own path.
        """
        session = await self._let(request, "approvals")
        queues = list(dict.fromkeys((*self._queues, *self._feed.queues)))
        queue = request.query_params.get("queue", "")
        found, more = await waiting_in(self._edge, session.tokens.access_token, [queue] if queue else queues)
        return _json({"approvals": found, "queues": queues, "more": more})

    async def approval(self, request: Request) -> Response:
        """`GET /api/approvals/{id}`: one task that waits, as the edge shows it to this person."""
        session = await self._let(request, "approvals")
        return _json(await self._edge.asked(session.tokens.access_token, "GET", _approval(request)))

    async def decide(self, request: Request) -> Response:
        """`POST /api/approvals/{id}`: say what this person says about it, at the edge and with their login."""
        session = await self._changing(request)
        body = await _body(request)
        asked = {name: str(body.get(name, "")) for name in ("decision", "verdict", "note")}
        await self._edge.asked(session.tokens.access_token, "POST", _approval(request), asked)
        return _json({})

    async def dead(self, request: Request) -> Response:
        """`GET /api/dead`."""
        await self._let(request, "dead")
        query = request.query_params
        return _json(await self._views.dead(query.get("agent", ""), min(_number(query.get("limit", ""), 50), 500)))

    async def agents(self, request: Request) -> Response:
        """`GET /api/agents`."""
        await self._let(request, "agents")
        return _json(await self._views.agents())

    async def schedules(self, request: Request) -> Response:
        """`GET /api/schedules`."""
        await self._let(request, "schedules")
        return _json(await self._views.schedules())

    async def policy(self, request: Request) -> Response:
        """`GET /api/policy`."""
        await self._let(request, "policy")
        return _json(await self._views.policy())

    async def source(self, request: Request) -> Response:
        """`GET /api/policy/source`: the files of the policy in force, less the library's."""
        await self._let(request, "what_if")
        bundle = await self._policies.in_force()
        if bundle is None:
            raise EdgeError(Code.NOT_FOUND, 404, "the policy in force is not at hand here")
        files = {one.path: one.text for one in bundle.modules if not in_library(one.path)}
        document: SourceDocument = {"revision": bundle.revision, "files": files}
        return _json(document)

    async def what_if(self, request: Request) -> Response:
        """`POST /api/what-if`: which decisions of a period another policy would have made otherwise."""
        await self._changing(request)
        await self._let(request, "what_if", "ask")
        body = await _body(request, _POLICY_BYTES)
        files = body.get("files")
        if not isinstance(files, dict) or not all(isinstance(one, str) for one in (*files, *files.values())):
            raise EdgeError(Code.MALFORMED, 400, "files are texts by their paths in the policy")
        bundle = await self._policies.in_force()
        if bundle is None:
            raise EdgeError(Code.NOT_FOUND, 404, "the policy in force is not at hand here")
        now = wall_clock()
        until = _time(str(body.get("until", ""))) or now
        since = _time(str(body.get("since", ""))) or until - _DAY
        if self._asking.locked():
            raise EdgeError(Code.RATE_LIMITED, 429, "somebody else asks just now", retry_after=5)
        async with self._asking:
            decisions = await self._search.period(since=since, until=until, most=MOST)
            found = await answers_of(bundle, files, decisions)
        return _json(found.document())

    async def log(self, request: Request) -> Response:
        """`GET /api/log`."""
        await self._let(request, "log")
        return _json(await self._views.log())

    async def verify(self, request: Request) -> Response:
        """`POST /api/log/verify`."""
        await self._changing(request)
        await self._let(request, "log", "verify")
        return _json(await self._views.verify())

    async def _let(self, request: Request, area: Area, item: str = "") -> Session:
        session = await self._login.session(request)
        await self._access.check(session, area, item)
        return session

    async def _changing(self, request: Request) -> Session:
        """Return the session of a request that changes something; raises `EdgeError` (403) for one of another site's page."""
        session = await self._login.session(request)
        check_own_page(request)
        return session


async def _next(reader: FeedReader) -> bytes | None:
    try:
        async with asyncio.timeout(QUIET):
            return await reader.next()
    except TimeoutError:
        return b":\n\n"


async def _body(request: Request, most: int = _BODY_BYTES) -> Mapping[str, Any]:
    data = await read_bytes(request, most, DEFAULT_EDGE_LIMITS.body_seconds)
    try:
        return parse_object(data, depth=4)
    except ValueError as error:
        raise EdgeError(Code.MALFORMED, 400, "the body is no JSON object") from error


async def waiting_in(
    edge: EdgeClient, token: str, queues: Sequence[str], *, most: int = APPROVALS
) -> tuple[list[dict[str, object]], bool]:
    """Return what waits in `queues` and the person with `token` may see, and whether there may be more.

    It ends after the page with which there are `most`. Raises as `EdgeClient.call`.
    """
    found: list[dict[str, object]] = []
    left = [(queue, 0) for queue in queues]
    for _ in range(_PAGES):
        if not left or len(found) >= most:
            break
        queue, after = left.pop(0)
        page = await edge.asked(token, "GET", "/v1/approvals", query={"queue": queue, "after": str(after)})
        found += [_of_a_list(one) for one in page.get("approvals", [])]
        if page.get("after"):
            left.insert(0, (queue, page["after"]))
    return found, bool(left)


def _of_a_list(task: object) -> dict[str, object]:
    """Return what a list shows of a task that waits."""
    return {name: value for name, value in task.items() if name in _OF_A_LIST} if isinstance(task, dict) else {}


def _approval(request: Request) -> str:
    return f"/v1/approvals/{quoted(request.path_params['id'])}"


def _time(text: str) -> int | None:
    """Return an RFC 3339 time, or so many minutes, hours or days ago (`15m`, `1h`, `2d`), in microseconds; None without."""
    if not text:
        return None
    if (ago := _AGO.fullmatch(text)) is not None:
        return wall_clock() - int(ago[1]) * _UNITS[ago[2]] * 1_000_000
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise EdgeError(Code.MALFORMED, 400, "a time is RFC 3339") from error
    return int((time if time.tzinfo is not None else time.replace(tzinfo=UTC)).timestamp() * 1_000_000)


def _number(text: str, otherwise: int) -> int:
    return int(text) if _WHOLE.fullmatch(text) else otherwise


def _json(document: Mapping[str, object]) -> Response:
    return Response(json.dumps(document), 200, dict(PAGE_HEADERS), "application/json")
