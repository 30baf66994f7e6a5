"""The types of the documents that a policy decides on: `input_document`, `approval_question` and `connect_document`.

Properties and claims come from agents and identity providers. They are texts, whole numbers, booleans and arrays of these; a
policy must check which.
"""

from __future__ import annotations

from typing import Final

from sealbus.policies.types.value import (
    BOOLEAN,
    INSTANT,
    JSON,
    NUMBER,
    TEXT,
    Type,
    array_of,
    join_all,
    object_of,
    record,
)

_SCALAR: Final = join_all([TEXT, NUMBER, BOOLEAN])
_PROPERTIES: Final = object_of(TEXT, join_all([_SCALAR, array_of(_SCALAR)]))
_SENDER: Final = record(dict.fromkeys(("trust_domain", "model", "prompt", "tools"), TEXT))

REQUEST: Final = record(
    {
        "v": NUMBER,
        "subject": record({"type": TEXT, "id": TEXT, "properties": _SENDER}),
        "action": record({"name": TEXT, "properties": _PROPERTIES}),
        "resource": record({"type": TEXT, "id": TEXT, "properties": _PROPERTIES}),
        "context": record(
            {
                "time": INSTANT,
                "subject": TEXT,
                "kind": TEXT,
                "message_id": TEXT,
                "tenant": TEXT,
                "delivery": NUMBER,
                "user": record(
                    {
                        **dict.fromkeys(("id", "idp", "session", "txn", "client", "acr", "type", "domain"), TEXT),
                        "present": BOOLEAN,
                        "scope": array_of(TEXT),
                        "claims": _PROPERTIES,
                        "auth_time": NUMBER,
                    }
                ),
                "chain": array_of(TEXT),
                "grant": record({"limited": BOOLEAN, "actions": array_of(TEXT)}),
                "approvals": array_of(
                    record(
                        {
                            **dict.fromkeys(("verdict", "user", "idp", "session", "client", "acr"), TEXT),
                            "auth_time": NUMBER,
                            "time": INSTANT,
                            "message": TEXT,
                            "record": TEXT,
                        }
                    )
                ),
                "parked": record({"since": TEXT, "revision": TEXT}),
            }
        ),
    }
)
"""The argument of `decide(request)` and `denials(request)`."""

APPROVAL_REQUEST: Final = Type(
    names=REQUEST.names,
    fields=tuple(sorted((*REQUEST.fields, ("of", REQUEST), ("obligation", object_of(TEXT, JSON))))),
)
"""The argument of `decide(request)` in package sealbus.approval.

Some members of an obligation may be absent: a policy checks their types before it uses them.
"""

CONNECT_REQUEST: Final = record(
    {
        "v": NUMBER,
        "subject": record({"type": TEXT, "id": TEXT, "properties": record({"trust_domain": TEXT, "token": TEXT})}),
        "action": record({"name": TEXT, "properties": _PROPERTIES}),
        "resource": record({"type": TEXT, "id": TEXT, "properties": record({"name": TEXT})}),
        "context": record(
            {
                "time": INSTANT,
                "not_after": INSTANT,
                "own_subjects": array_of(
                    record(dict.fromkeys(("subject", "kind", "owner", "action", "durable"), TEXT))
                ),
            }
        ),
    }
)
"""The argument of `decide(request)` in package sealbus.connect."""


def batch_of(request: Type) -> Type:
    """Return the type of `input`: a request, or many of them in `batch`."""
    return Type(names=request.names, fields=tuple(sorted((*request.fields, ("batch", array_of(request))))))
