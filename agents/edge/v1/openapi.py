"""The OpenAPI 3.1 document of an edge: the exposed actions as their agents describe them, and the edge's own resources.

`openapi.json` beside this module holds the part that is the same for every edge. In it `x-problems` of an operation lists
its error statuses beside those of every operation, and no response names `X-Request-Id`, which all have. The reason of a
cancel has at most 256 bytes without control characters; JSON Schema cannot express that, so its pattern admits a part only.

The edge knows no agent's code. It reads the files that `sealbus agent schema` wrote.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.responses import Response

from sealbus.agents.edge.event_streams import EVENT_STREAM
from sealbus.agents.edge.front import Exposed
from sealbus.agents.edge.http.problem import PROBLEM, REJECTED, STATUS, json_answer
from sealbus.agents.edge.oauth.bearer import CACHE_SECONDS
from sealbus.agents.edge.oauth.issuers import Issuer
from sealbus.agents.sdk.bodies import JSON, MSGPACK
from sealbus.agents.sdk.schema import REFERENCE, SCHEMA_BYTES, ActionSchema, AgentSchema, reachable
from sealbus.envelopes.errors import ConfigurationError

OPENAPI_PATH: Final = "/v1/openapi.json"

_OWN: Final = Path(__file__).with_name("openapi.json")
"""The edge's own part of the document. Its models have no dot in their names; those of agents have one."""
_SCHEDULES: Final = "/v1/schedules"
_SCHEDULE_MODELS: Final = frozenset({"Grant", "Granted", "Schedule"})

_EVERY: Final = {"X-Request-Id": {"$ref": "#/components/headers/RequestId"}}
_PROBLEM_HEADERS: Final = {
    401: {"WWW-Authenticate": "Challenge", "DPoP-Nonce": "Nonce"},
    403: {"WWW-Authenticate": "Challenge"},
    405: {"Allow": "Allow"},
    429: {"Retry-After": "RetryAfter"},
    503: {"Retry-After": "RetryAfter"},
}
"""Header fields of a problem by its status, with their names among `components/headers`."""
_FURTHER_CODES: Final[Mapping[int, Sequence[str]]] = {
    401: ["`revoked`, by word of the identity provider", "`denied`, where a login would help"],
    REJECTED: ["whatever code the agent rejects with"],
    500: ["`internal`"],
}
"""Codes that are answered with a status which `STATUS` does not give them."""
_ANY_OPERATION: Final = frozenset({400, 401, 429, 500, 503})
"""Statuses of every operation: a request may be malformed, lack a good token, be one too many, come too early, or fail."""

Json = dict[str, Any]


def read_schemas(paths: Sequence[Path]) -> tuple[AgentSchema, ...]:
    """Return the schemas in the files of `edge.schemas`; raise `ConfigurationError`, one line that names the file."""
    schemas: dict[str, AgentSchema] = {}
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
        if schema.agent in schemas:
            raise ConfigurationError(f"edge.schemas {path}: there is another file of the agent {schema.agent}")
        schemas[schema.agent] = schema
    return tuple(schemas.values())


def openapi_answer(document: Mapping[str, object]) -> Response:
    """Return the answer with the document, which needs no token and may be cached."""
    return json_answer(document, 200, **{"cache-control": f"public, max-age={CACHE_SECONDS}"})


def openapi_document(
    schemas: Sequence[AgentSchema],
    exposed: Exposed,
    *,
    resource: str,
    issuers: Sequence[Issuer],
    schedules: bool = False,
) -> dict[str, object]:
    """Return the document of the edge whose resource is `resource`, with those actions of `schemas` that are exposed.

    An action that takes bytes is left out, because no HTTP request can carry them. `schedules` says whether users may have
    actions done later.
    """
    own: Json = json.loads(_OWN.read_bytes())
    actions = list(_exposed_actions(schemas, exposed))
    models = {name: model for schema in schemas for name, model in schema.models.items()}
    bodies = [body for _, action in actions for body in (action.takes, action.gives)]
    parts = urlsplit(resource)
    security = own["components"]["securitySchemes"] | _issuer_schemes(issuers)
    return {
        "openapi": own["openapi"],
        "info": {"title": f"Actions of {parts.netloc}", **own["info"]},
        # Without the path of the resource: `Location` and `status_url` have none either.
        "servers": [{"url": f"{parts.scheme}://{parts.netloc}"}],
        "security": [{name: []} for name in security],
        "paths": {
            **{
                f"/v1/{action.kind}s/{agent}/{action.verb}": {"post": _operation(agent, action)}
                for agent, action in actions
            },
            **{
                path: _completed(item)
                for path, item in own["paths"].items()
                if schedules or not path.startswith(_SCHEDULES)
            },
        },
        "components": {
            "schemas": {
                **{
                    name: model
                    for name, model in own["components"]["schemas"].items()
                    if schedules or name not in _SCHEDULE_MODELS
                },
                **reachable(bodies, models),
            },
            "responses": {f"Problem{status}": _problem(status) for status in sorted({*STATUS.values(), REJECTED, 500})},
            "headers": own["components"]["headers"],
            "securitySchemes": security,
        },
    }


def _exposed_actions(schemas: Sequence[AgentSchema], exposed: Exposed) -> Iterator[tuple[str, ActionSchema]]:
    for schema in schemas:
        for action in schema.actions:
            if JSON in action.takes and exposed.shows(schema.agent, action.verb):
                yield schema.agent, action


def _completed(item: Json) -> Json:
    """Return a path item of `openapi.json` with the whole responses of its operations."""
    return {
        name: part if name == "parameters" else {**part, "responses": _responses(part["responses"])}
        for name, part in item.items()
    }


def _responses(own: Json) -> Json:
    """Return all responses of an operation whose own are `own`, with `x-problems` expanded."""
    statuses = sorted(_ANY_OPERATION.union(own.pop("x-problems", ())))
    complete: Json = {}
    for status, response in own.items():
        headers = {**_EVERY, **response.pop("headers", {})}
        complete[status] = {"description": response.pop("description"), "headers": headers, **response}
    return complete | {str(status): {"$ref": f"#/components/responses/Problem{status}"} for status in statuses}


def _problem(status: int) -> Json:
    codes = [f"`{code}`" for code, usual in STATUS.items() if usual == status]
    headers = {
        name: {"$ref": f"#/components/headers/{part}"} for name, part in _PROBLEM_HEADERS.get(status, {}).items()
    }
    return {
        "description": ", ".join((*codes, *_FURTHER_CODES.get(status, ()))),
        # Bytes that are no request are answered before there is a request with an id.
        "headers": {**({} if status in (400, 408) else _EVERY), **headers},
        "content": {PROBLEM: {"schema": {"$ref": f"{REFERENCE}Problem"}}},
    }


def _operation(agent: str, action: ActionSchema) -> Json:
    schema = {"schema": action.takes[JSON]}
    operation = {
        "operationId": f"{action.kind}.{agent}.{action.verb}",
        "tags": [agent],
        "summary": action.summary,
        "requestBody": {"required": True, "content": {JSON: schema, MSGPACK: schema}},
    }
    return operation | (_submission(action) if action.kind == "task" else _call(action))


def _submission(action: ActionSchema) -> Json:
    accepted = {
        "description": "The task is stored.",
        "headers": {"Location": {"required": True, "schema": {"type": "string"}}},
        "content": {JSON: {"schema": {"$ref": f"{REFERENCE}Submitted"}}},
        "links": {
            name: {"operationId": name, "parameters": {"task": "$response.body#/id"}}
            for name in ("getTask", "getTaskResult", "followTask", "cancelTask")
        },
    }
    key = {
        "name": "Idempotency-Key",
        "in": "header",
        "schema": {"type": "string", "pattern": "^[!-~]([ -~]{0,253}[!-~])?$"},
    }
    result = {
        typ: {"type": "array", "items": schema} if action.parts else schema for typ, schema in action.gives.items()
    }
    return {
        "parameters": [key],
        "responses": _responses({"202": accepted, "x-problems": [408, 413, 415]}),
        # OpenAPI has no place for the body of the answer to another request.
        "x-sealbus-result": {typ: {"schema": schema} for typ, schema in result.items()},
    }


def _call(action: ActionSchema) -> Json:
    content: Json = {typ: {"schema": schema} for typ, schema in action.gives.items()}
    description = "The agent's answer."
    if action.parts:
        content = {EVENT_STREAM: {"x-sealbus-part": content}}
        description = f"Chunks as events, to a request with `Accept: {EVENT_STREAM}`; to any other, 406."
    problems = [403, 404, 406, 408, 409, 413, 415, REJECTED, 502, 504]
    return {"responses": _responses({"200": {"description": description, "content": content}, "x-problems": problems})}


def _issuer_schemes(issuers: Sequence[Issuer]) -> Json:
    """Return a security scheme for each issuer whose metadata the edge itself reads; others may have none."""
    urls = sorted(row.issuer for row in issuers if row.grants and row.jwks_uri is None and row.introspection is None)
    return {
        f"issuer{number}": {
            "type": "openIdConnect",
            "openIdConnectUrl": f"{url.rstrip('/')}/.well-known/openid-configuration",
        }
        for number, url in enumerate(urls, 1)
    }
