"""The OpenAPI 3.1 document of an edge: what it exposes of the actions that its agents describe, and how it answers.

The edge knows no agent's code. It reads what `sealbus agent schema` wrote, and shows of it the actions that its own settings
expose, with the models that these need.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from starlette.responses import Response

from sealbus.agents.edge.event_streams import EVENT_STREAM
from sealbus.agents.edge.front import Exposed
from sealbus.agents.edge.http.problem import HEADERS, PROBLEM, REJECTED, STATUS, EdgeError
from sealbus.agents.edge.oauth.bearer import CACHE_SECONDS
from sealbus.agents.edge.oauth.issuers import Issuer
from sealbus.agents.edge.task_routes import SUBMITTED
from sealbus.agents.sdk.bodies import JSON, MSGPACK
from sealbus.agents.sdk.schema import REFERENCE, SCHEMA_BYTES, ActionSchema, AgentSchema, reachable
from sealbus.bus.sending.approval import Verdict
from sealbus.bus.sending.status import State
from sealbus.bus.work.schedules.request import Overlap
from sealbus.bus.work.schedules.standing import STANDING_SHORTEST
from sealbus.envelopes.denial import RemedyKind
from sealbus.envelopes.errors import ConfigurationError

__all__ = ["OPENAPI_PATH", "openapi_answer", "openapi_document", "read_schemas"]

OPENAPI_PATH: Final = "/v1/openapi.json"
_OPENAPI: Final = "3.1.0"

Member = Mapping[str, object]


def read_schemas(paths: Sequence[Path]) -> tuple[AgentSchema, ...]:
    """Return what the files of `edge.schemas` hold; raise `ConfigurationError`, one line that names the file."""
    found: dict[str, AgentSchema] = {}
    for path in paths:
        try:
            with path.open("rb") as file:
                schema = AgentSchema.parse(file.read(SCHEMA_BYTES + 1))
        except OSError as error:
            raise ConfigurationError(f"edge.schemas {path} cannot be read: {error.strerror}") from error
        except ConfigurationError as error:
            raise ConfigurationError(
                f"edge.schemas {path}: {error.detail}; `sealbus agent schema` writes such files"
            ) from error
        if schema.agent in found:
            raise ConfigurationError(f"edge.schemas {path}: there is another file of the agent {schema.agent}")
        found[schema.agent] = schema
    return tuple(found.values())


def openapi_answer(document: Member) -> Response:
    """Return the answer with the document, for everybody."""
    headers = {**HEADERS, "cache-control": f"public, max-age={CACHE_SECONDS}"}
    return Response(json.dumps(document, ensure_ascii=False), 200, headers, JSON)


def openapi_document(
    schemas: Sequence[AgentSchema],
    exposed: Exposed,
    *,
    resource: str,
    issuers: Sequence[Issuer],
    schedules: bool = False,
) -> dict[str, object]:
    """Return the document of the edge whose resource is `resource`, with those actions of `schemas` that are exposed.

    An action that takes bytes is left out: no request brings it any. `schedules` says that users may have things done later.
    """
    shown = list(_shown(schemas, exposed))
    models = {name: model for schema in schemas for name, model in schema.models.items()}
    bodies = [one for _, action in shown for one in (action.takes, action.gives)]
    parts = urlsplit(resource)
    schemes = _schemes(issuers)
    return {
        "openapi": _OPENAPI,
        "info": {"title": f"Actions of {parts.netloc}", "version": "1", "description": _ABOUT},
        # Without the path of the resource: `Location` and `status_url` have none either.
        "servers": [{"url": f"{parts.scheme}://{parts.netloc}"}],
        "security": [{name: []} for name in schemes],
        "paths": {
            **{_path(agent, action): {"post": _operation(agent, action)} for agent, action in shown},
            **_TASK_PATHS,
            **_APPROVAL_PATHS,
            **(_SCHEDULE_PATHS if schedules else {}),
        },
        "components": {
            "schemas": {**_MODELS, **(_SCHEDULE_MODELS if schedules else {}), **reachable(bodies, models)},
            "responses": _PROBLEMS,
            "headers": _FIELDS,
            "securitySchemes": schemes,
        },
    }


def _shown(schemas: Sequence[AgentSchema], exposed: Exposed) -> Iterator[tuple[str, ActionSchema]]:
    for schema in schemas:
        for action in schema.actions:
            try:
                exposed.action(schema.agent, action.verb)
            except EdgeError:
                continue
            if JSON in action.takes:
                yield schema.agent, action


def _path(agent: str, action: ActionSchema) -> str:
    return f"/v1/{action.kind}s/{agent}/{action.verb}"


def _operation(agent: str, action: ActionSchema) -> dict[str, object]:
    schema = {"schema": action.takes[JSON]}
    operation = {
        "operationId": f"{action.kind}.{agent}.{action.verb}",
        "tags": [agent],
        "summary": action.summary,
        "requestBody": {"required": True, "content": {JSON: schema, MSGPACK: schema}},
    }
    return operation | (_submission(action) if action.kind == "task" else _call(action))


def _submission(action: ActionSchema) -> dict[str, object]:
    accepted = {
        "description": "The task is stored.",
        "headers": {**_EVERY, "Location": {"required": True, "schema": {"type": "string"}}},
        "content": {JSON: {"schema": _ref("Submitted")}},
        "links": {
            name: {"operationId": name, "parameters": {"task": "$response.body#/id"}}
            for name in ("getTask", "getTaskResult", "followTask", "cancelTask")
        },
    }
    result = {typ: _array(schema) if action.parts else schema for typ, schema in action.gives.items()}
    return {
        "parameters": [_KEY],
        "responses": _responses({"202": accepted}, 408, 413, 415),
        # What the answer to another request holds has no place of its own in OpenAPI.
        "x-sealbus-result": {typ: {"schema": schema} for typ, schema in result.items()},
    }


def _call(action: ActionSchema) -> dict[str, object]:
    content: dict[str, object] = {typ: {"schema": schema} for typ, schema in action.gives.items()}
    described = "The agent's answer."
    if action.parts:
        content = {EVENT_STREAM: {"x-sealbus-part": content}}
        described = f"Chunks as events, to a request with `Accept: {EVENT_STREAM}`; to any other, 406."
    done = {"description": described, "headers": _EVERY, "content": content}
    others = (403, 404, 406, 408, 409, 413, 415, REJECTED, 502, 504)
    return {"responses": _responses({"200": done}, *others)}


def _responses(done: Member, *statuses: int) -> dict[str, object]:
    # Whatever is asked for, a request may be malformed, without a good token, too many, too early, or met by a fault.
    return {**done, **{str(one): _problem(one) for one in sorted({400, 401, 429, 500, 503, *statuses})}}


def _problem(status: int) -> dict[str, str]:
    return {"$ref": f"#/components/responses/Problem{status}"}


def _ref(name: str) -> dict[str, object]:
    return {"$ref": f"{REFERENCE}{name}"}


def _array(schema: object) -> dict[str, object]:
    return {"type": "array", "items": schema}


def _schemes(issuers: Sequence[Issuer]) -> dict[str, object]:
    schemes: dict[str, object] = {
        "bearer": {"type": "http", "scheme": "bearer", "description": "An access token that is bound to no key."},
        "dpop": {
            "type": "http",
            "scheme": "DPoP",
            "description": "One that is bound to a key, with a proof (RFC 9449).",
        },
    }
    # Whose metadata the edge reads itself; of others it does not know that there are any.
    found = sorted(one.issuer for one in issuers if one.grants and one.jwks_uri is None and one.introspection is None)
    for number, issuer in enumerate(found, 1):
        url = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
        schemes[f"issuer{number}"] = {"type": "openIdConnect", "openIdConnectUrl": url}
    return schemes


def _object(required: Sequence[str], **properties: object) -> dict[str, object]:
    return {"type": "object", "required": list(required), "properties": properties}


_TEXT: Final[Member] = {"type": "string"}
_WHOLE: Final[Member] = {"type": "integer", "minimum": 0}

_ABOUT: Final = """\
A task is stored and done whether or not its agent is up; a call is answered in the response. What an action takes and gives
is the word of its agent, which refuses a body that does not fit: a call with status 422, a task in its state.

Bodies may be msgpack in place of JSON. Errors are `application/problem+json` with a stable `code`. Other paths are 404, other
methods 405 with `Allow`. Every answer has `X-Request-Id`."""

_FIELDS: Final[Member] = {
    "RequestId": {
        "description": "The id of the request, also in the records of what followed from it.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
    },
    "RetryAfter": {"description": "Seconds.", "required": True, "schema": {"type": "string", "pattern": "^[0-9]+$"}},
    "Challenge": {
        "description": "RFC 6750, RFC 9449, RFC 9470; `resource_metadata` is that of RFC 9728.",
        "schema": _TEXT,
    },
    "Nonce": {"description": "For the next proof (RFC 9449), where proofs need one.", "schema": _TEXT},
    "Allow": {"description": "The methods.", "required": True, "schema": _TEXT},
}
_EVERY: Final[Member] = {"X-Request-Id": {"$ref": "#/components/headers/RequestId"}}
_SOMETIMES: Final[Mapping[int, Member]] = {
    401: {
        "WWW-Authenticate": {"$ref": "#/components/headers/Challenge"},
        "DPoP-Nonce": {"$ref": "#/components/headers/Nonce"},
    },
    403: {"WWW-Authenticate": {"$ref": "#/components/headers/Challenge"}},
    405: {"Allow": {"$ref": "#/components/headers/Allow"}},
    429: {"Retry-After": {"$ref": "#/components/headers/RetryAfter"}},
    503: {"Retry-After": {"$ref": "#/components/headers/RetryAfter"}},
}

_DENIAL: Final[Member] = {
    "reasons": _array(_TEXT),
    "remedy": _array(
        _object(
            ["kind"],
            kind={"enum": [one.value for one in RemedyKind]},
            acr=_TEXT,
            max_age=_WHOLE,
            scope=_TEXT,
            action=_TEXT,
            whom=_TEXT,
            after=_WHOLE,
        )
    ),
    "via": _array(
        {
            "description": "Who denied, the one that was asked first: SPIFFE ID, action, code.",
            **_array(_TEXT),
            "minItems": 3,
            "maxItems": 3,
        }
    ),
}
_MODELS: Final[Member] = {
    "Problem": _object(
        ["type", "title", "status", "code", "detail"],
        type={"const": "about:blank"},
        title=_TEXT,
        status={"type": "integer", "minimum": 400, "maximum": 599},
        code={"type": "string", "pattern": "^[a-z][a-z0-9_]{0,63}$"},
        detail=_TEXT,
        **_DENIAL,
    ),
    "Submitted": _object(["id", "status_url"], id=_TEXT, status_url=_TEXT, note=_TEXT),
    "Task": _object(
        ["id", "action", "state", "final"],
        id=_TEXT,
        action=_TEXT,
        state={"enum": [SUBMITTED, *(one.value for one in State)]},
        final={"type": "boolean"},
        code=_TEXT,
        note=_TEXT,
        by=_TEXT,
        result_url=_TEXT,
        **_DENIAL,
    ),
    "Approval": _object(
        ["id", "task", "decision", "queue", "text", "action", "agent", "requester", "chain", "since", "until", "needs"],
        id=_TEXT,
        task=_TEXT,
        decision=_TEXT,
        queue=_TEXT,
        text=_TEXT,
        action=_TEXT,
        agent=_TEXT,
        requester=_TEXT,
        chain=_array(_TEXT),
        since=_TEXT,
        until=_TEXT,
        needs=_object(["acr", "max_age"], acr=_array(_TEXT), max_age={"type": ["integer", "null"]}),
    ),
    "Verdict": {
        **_object(
            ["decision", "verdict"],
            decision={"type": "string", "pattern": "^[0-9a-f]{64}$"},
            verdict={"enum": [one.value for one in Verdict]},
            note={"type": "string", "maxLength": 64, "pattern": "^[ -~]*$"},
        ),
        "additionalProperties": False,
    },
}
"""Models of the edge itself. Those of agents have a dot in their names."""


_FURTHER: Final[Mapping[int, Sequence[str]]] = {
    401: ["`revoked`, by word of the identity provider", "`denied`, where a login would help"],
    REJECTED: ["whatever code the agent rejects with"],
    500: ["`internal`"],
}
"""What answers with a status beside the codes whose own it is."""


def _codes(status: int) -> str:
    codes = [f"`{code}`" for code, one in STATUS.items() if one == status]
    return ", ".join((*codes, *_FURTHER.get(status, ())))


_PROBLEMS: Final[Member] = {
    f"Problem{status}": {
        "description": _codes(status),
        # Bytes that are no request get their answer before there is one to have an id.
        "headers": {**({} if status in (400, 408) else _EVERY), **_SOMETIMES.get(status, {})},
        "content": {PROBLEM: {"schema": _ref("Problem")}},
    }
    for status in sorted({*STATUS.values(), REJECTED, 500})
}

_TASK: Final[Member] = {
    "name": "task",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
}
_KEY: Final[Member] = {
    "name": "Idempotency-Key",
    "in": "header",
    "schema": {"type": "string", "pattern": "^[!-~]([ -~]{0,253}[!-~])?$"},
}
_LAST_EVENT: Final[Member] = {
    "name": "Last-Event-ID",
    "in": "header",
    "schema": {"type": "string", "pattern": "^[0-9]{1,15}$"},
}
_STATE: Final[Member] = {"headers": _EVERY, "content": {JSON: {"schema": _ref("Task")}}}
_REASON: Final[Member] = {
    # At most 256 bytes without control characters, which JSON Schema cannot say of all texts at once.
    **_object(
        [],
        reason={
            "type": "string",
            "anyOf": [
                {"maxLength": 256, "pattern": "^[ -~]*$"},
                {"maxLength": 64, "pattern": r"^[^\u0000-\u001f\u007f-\u009f]*$"},
            ],
        },
    ),
    "additionalProperties": False,
}
_TASK_PATHS: Final[Member] = {
    "/v1/tasks/{task}": {
        "parameters": [_TASK],
        "get": {
            "operationId": "getTask",
            "tags": ["tasks"],
            "summary": "Get the newest state of a task.",
            "responses": _responses({"200": {"description": "The state.", **_STATE}}, 404),
        },
        "delete": {
            "operationId": "cancelTask",
            "tags": ["tasks"],
            "summary": "Cancel a task and what follows from it.",
            "requestBody": {"content": {JSON: {"schema": _REASON}}},
            "responses": _responses(
                {"202": {"description": "The cancel is in force.", **_STATE}}, 403, 404, 408, 409, 413, 415
            ),
        },
    },
    "/v1/tasks/{task}/result": {
        "parameters": [_TASK],
        "get": {
            "operationId": "getTaskResult",
            "tags": ["tasks"],
            "summary": "Get the result of a task, or the error of one that ended without.",
            "responses": _responses(
                {
                    "200": {
                        "description": "What `x-sealbus-result` of the operation that submitted it says.",
                        "headers": _EVERY,
                        "content": {"*/*": {}},
                    },
                    "202": {"description": "There is none yet.", **_STATE},
                },
                *(403, 404, 409, REJECTED, 502, 504),
            ),
        },
    },
    "/v1/tasks/{task}/events": {
        "parameters": [_TASK, _LAST_EVENT],
        "get": {
            "operationId": "followTask",
            "tags": ["tasks"],
            "summary": "Follow the states of a task, and the parts of its result.",
            "responses": _responses(
                {
                    "200": {
                        "description": "Events `status`, `part` and `problem`, with ids to come back with.",
                        "headers": _EVERY,
                        "content": {EVENT_STREAM: {}},
                    }
                },
                404,
            ),
        },
    },
}

_WAITING: Final[Member] = {
    "name": "task",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
}
_APPROVAL_PATHS: Final[Member] = {
    "/v1/approvals": {
        "parameters": [
            {
                "name": "queue",
                "in": "query",
                "required": True,
                "schema": {"type": "string", "pattern": "^[A-Za-z0-9_-]+$"},
            },
            {"name": "after", "in": "query", "schema": {"type": "string", "pattern": "^[0-9]{1,15}$"}},
        ],
        "get": {
            "operationId": "listApprovals",
            "tags": ["approvals"],
            "summary": "List what waits in a queue for somebody's approval, as far as this user may see it.",
            "responses": _responses(
                {
                    "200": {
                        "description": "At most 1,000; `after` begins the next page.",
                        "headers": _EVERY,
                        "content": {
                            JSON: {
                                "schema": _object(
                                    ["approvals"], approvals=_array(_ref("Approval")), after={"type": "integer"}
                                )
                            }
                        },
                    }
                }
            ),
        },
    },
    "/v1/approvals/{task}": {
        "parameters": [_WAITING],
        "get": {
            "operationId": "getApproval",
            "tags": ["approvals"],
            "summary": "Get one task that waits.",
            "responses": _responses(
                {
                    "200": {
                        "description": "What would be done, to what, for whom.",
                        "headers": _EVERY,
                        "content": {JSON: {"schema": _ref("Approval")}},
                    }
                },
                *(404, 409),
            ),
        },
        "post": {
            "operationId": "decideApproval",
            "tags": ["approvals"],
            "summary": "Approve or deny exactly what was shown; needs the scope sealbus:approve.",
            "requestBody": {"required": True, "content": {JSON: {"schema": _ref("Verdict")}}},
            "responses": _responses(
                {
                    "200": {
                        "description": "It is decided, recorded and counted.",
                        "headers": _EVERY,
                        "content": {JSON: {"schema": _object(["id", "verdict"], id=_TEXT, verdict=_TEXT)}},
                    }
                },
                *(403, 404, 408, 409, 413, 415),
            ),
        },
    },
}

_WHEN: Final[Member] = {
    "oneOf": [
        {**_object(["cron", "zone"], cron=_TEXT, zone=_TEXT), "additionalProperties": False},
        {
            **_object(["every"], every={"type": "integer", "minimum": STANDING_SHORTEST}),
            "additionalProperties": False,
        },
        {**_object(["at"], at={"type": "string", "format": "date-time"}), "additionalProperties": False},
    ]
}
_OVERLAP: Final[Member] = {"enum": [one.value for one in Overlap]}
_NAME: Final[Member] = {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,39}$"}
_TIME: Final[Member] = {"type": "string", "format": "date-time"}
_SCHEDULE_MODELS: Final[Member] = {
    "Grant": {
        **_object(
            ["name", "action", "body", "when", "grants"],
            name=_NAME,
            action={"type": "string", "description": "`<agent>.<verb>` of a task that is exposed."},
            body={"description": "What the action takes, the same each time."},
            when=_WHEN,
            overlap=_OVERLAP,
            until={**_TIME, "description": "30 days from now unless said, at most 90."},
            grants={**_array(_TEXT), "description": "The only actions that may follow; none if it is empty."},
        ),
        "additionalProperties": False,
    },
    "Granted": _object(["name", "action", "until"], name=_NAME, action=_TEXT, until=_TIME),
    "Schedule": _object(
        ["name", "action", "when", "overlap", "until", "grants"],
        name=_NAME,
        action=_TEXT,
        when={"type": "string", "description": "A line for people."},
        overlap=_OVERLAP,
        until=_TIME,
        grants=_array(_TEXT),
        next=_TIME,
        last=_object(["time", "status_url"], time=_TIME, status_url=_TEXT),
    ),
}
_SCHEDULE_PATHS: Final[Member] = {
    "/v1/schedules": {
        "get": {
            "operationId": "listSchedules",
            "tags": ["schedules"],
            "summary": "List what this user has done later.",
            "responses": _responses(
                {
                    "200": {
                        "description": "Those that are neither removed nor over.",
                        "headers": _EVERY,
                        "content": {
                            JSON: {"schema": _object(["schedules"], schedules=_array(_ref("Schedule")))},
                        },
                    }
                }
            ),
        },
        "post": {
            "operationId": "grantSchedule",
            "tags": ["schedules"],
            "summary": "Have one action done later, or again and again; needs a fresh login and the scope sealbus:schedule.",
            "requestBody": {"required": True, "content": {JSON: {"schema": _ref("Grant")}}},
            "responses": _responses(
                {
                    "201": {
                        "description": "It is decided, recorded and kept; one of that name is replaced.",
                        "headers": {**_EVERY, "Location": {"required": True, "schema": {"type": "string"}}},
                        "content": {JSON: {"schema": _ref("Granted")}},
                    }
                },
                *(403, 404, 408, 413, 415, REJECTED),
            ),
        },
    },
    "/v1/schedules/{name}": {
        "parameters": [{"name": "name", "in": "path", "required": True, "schema": _NAME}],
        "delete": {
            "operationId": "removeSchedule",
            "tags": ["schedules"],
            "summary": "End it: nothing more is sent.",
            "responses": _responses({"204": {"description": "It has ended.", "headers": _EVERY}}, 403, 404),
        },
    },
}
