"""The routes of the edge's public listener, and how it answers errors: problem+json with the challenges of OAuth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from sealbus.agents.edge.actions import Actions
from sealbus.agents.edge.front import RESOURCE, SCHEME, Front, NamedResource
from sealbus.agents.edge.http.application import PATTERN, Application, Methods, requested_method
from sealbus.agents.edge.http.cors import Cors
from sealbus.agents.edge.http.problem import EdgeError, explanation_of, problem_of
from sealbus.agents.edge.oauth.bearer import WELL_KNOWN, Scheme, challenge, metadata_answer, metadata_path, needed
from sealbus.agents.edge.v1.approval_routes import APPROVALS_PATH, ApprovalRoutes
from sealbus.agents.edge.v1.openapi import OPENAPI_PATH, openapi_answer
from sealbus.agents.edge.v1.revocation_routes import LOGOUT_PATH, SECURITY_EVENTS_PATH, RevocationRoutes
from sealbus.agents.edge.v1.schedule_routes import SCHEDULES_PATH, ScheduleRoutes
from sealbus.agents.edge.v1.standing_grants import EdgeGrants
from sealbus.agents.edge.v1.task_routes import TaskEvents, Tasks
from sealbus.envelopes.denial import RemedyKind
from sealbus.envelopes.errors import SealbusError


def edge_app(
    actions: Actions,
    *,
    grants: EdgeGrants | None = None,
    document: Mapping[str, object] | None = None,
    cors: Cors | None = None,
    proxies: int = 0,
    doors: Sequence[BaseRoute] = (),
) -> Application:
    """Return the public application of an edge; `document`, if there is one, needs no token.

    With `grants` users may schedule actions. `doors` are the routes of other protocols to the same actions.
    """
    front, limits = actions.front, actions.front.limits
    tasks, calls = actions.tasks, actions.calls
    events = TaskEvents(front, tasks, actions.streams)
    approvals = ApprovalRoutes(front, actions.parked_tasks)

    async def metadata(request: Request) -> Response:
        del request
        return metadata_answer(front.resource, front.issuers, certificates=front.shows_certificates)

    def answer_of(error: SealbusError, scope: Scope) -> Response:
        schemes = [scope[SCHEME]] if SCHEME in scope else list(Scheme)
        resource: NamedResource = scope.get(RESOURCE, NamedResource(front.resource))
        if not isinstance(error, EdgeError):
            return _answer(error, resource.url, schemes[0])
        answer = problem_of(error)
        if error.status == HTTPStatus.UNAUTHORIZED or error.error == "invalid_request":
            for scheme in schemes:
                challenge(answer, resource.url, scheme, error=error.error, scope=resource.scopes)
        return answer

    async def openapi(request: Request) -> Response:
        del request
        return openapi_answer(document or {})

    described = Methods(GET=metadata)
    paths = {WELL_KNOWN, metadata_path(front.resource)}
    return Application(
        [
            Route("/v1/calls/{agent}/{verb}", Methods(POST=calls.call)),
            Route("/v1/tasks/{agent}/{verb}", _TaskPaths(tasks, events)),
            Route("/v1/tasks/{task}", Methods(GET=tasks.status, DELETE=tasks.cancel)),
            *(Route(path, described) for path in sorted(paths)),
            *([Route(OPENAPI_PATH, Methods(GET=openapi))] if document is not None else []),
            Route(APPROVALS_PATH, Methods(GET=approvals.list)),
            Route(APPROVALS_PATH + "/{task}", Methods(GET=approvals.show, POST=approvals.decide)),
            *(_schedule_routes(front, grants) if grants is not None else []),
            *_revocation_routes(front),
            *doors,
        ],
        answer_of=answer_of,
        counters=front.node.counters,
        tracer=front.node.tracer,
        addresses=front.buckets(limits.address_rate, limits.address_burst),
        secure=front.resource.startswith("https://"),
        cors=cors,
        proxies=proxies,
    )


def _schedule_routes(front: Front, grants: EdgeGrants) -> list[Route]:
    schedules = ScheduleRoutes(front, grants)
    return [
        Route(SCHEDULES_PATH, Methods(GET=schedules.list, POST=schedules.grant)),
        Route(SCHEDULES_PATH + "/{name}", Methods(DELETE=schedules.remove)),
    ]


def _revocation_routes(front: Front) -> list[Route]:
    """Return the routes by which identity providers report, each only if an issuer may use it."""
    routes = RevocationRoutes(front)
    events = [Route(SECURITY_EVENTS_PATH, Methods(POST=routes.security_event))]
    logouts = [Route(LOGOUT_PATH, Methods(POST=routes.logout))]
    return [
        *(events if any(issuer.event_audiences for issuer in front.issuers) else []),
        *(logouts if any(issuer.logout_audiences for issuer in front.issuers) else []),
    ]


def _answer(error: SealbusError, resource: str, scheme: Scheme) -> Response:
    """Return the answer to a request that ended with `error`, with what the remedies of a denial ask of the client.

    The first remedy that asks for another token becomes the challenge. If it asks for a login, the status is 401.
    """
    remedies = explanation_of(error).remedies
    token = next((remedy for remedy in remedies if remedy.kind in (RemedyKind.LOGIN, RemedyKind.SCOPE)), None)
    after = next((remedy.after for remedy in remedies if remedy.kind is RemedyKind.LATER), None)
    login = token is not None and token.kind is RemedyKind.LOGIN
    answer = problem_of(error, status=HTTPStatus.UNAUTHORIZED if login else None, retry_after=after)
    if token is not None:
        needed(answer, token, resource, scheme)
    return answer


class _TaskPaths:
    """`/v1/tasks/{a}/{b}`: an action to POST to, or a part of a task to GET. An agent's name may look like a task's id."""

    def __init__(self, tasks: Tasks, events: TaskEvents) -> None:
        self._submit = Methods(POST=tasks.submit)
        self._parts = {"result": Methods(GET=tasks.result), "events": Methods(GET=events.follow)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        parameters = scope["path_params"]
        part = self._parts.get(parameters["verb"])
        if part is not None and requested_method(scope) != "POST":
            scope["path_params"] = {"task": parameters["agent"]}
            scope[PATTERN] = f"/v1/tasks/{{task}}/{parameters['verb']}"
            await part(scope, receive, send)
        else:
            await self._submit(scope, receive, send)
