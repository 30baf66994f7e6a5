"""Vectors of revocations: whom they deny, and documents that are none (SPEC.md section 7, "Revocations")."""

from __future__ import annotations

from vectors.issuing import EDGE, NOW, PLANNER, SECOND, Json
from vectors.world import context

__all__ = ["revocations"]

IDP = "https://idp.example"
LOGIN = NOW - 3_600 * SECOND


def revocations() -> Json:
    """Return the whole file."""
    user = context(aut=LOGIN + SECOND // 2).payload.hex()
    unknown = context().payload.hex()
    cases: list[tuple[str, str, dict[str, Json], str | None]] = [
        ("nobody", user, {}, None),
        ("the session", user, {"sessions": {IDP: {"s-1": 0}}}, "revoked_session"),
        ("the user, by a login before", user, {"users": {IDP: {"u-1001": LOGIN + 1}}}, "revoked_user"),
        ("the user, by a login in the same second", user, {"users": {IDP: {"u-1001": LOGIN}}}, "revoked_user"),
        ("the user, by a login after", user, {"users": {IDP: {"u-1001": LOGIN - 1}}}, None),
        ("the user, whose login is not known", unknown, {"users": {IDP: {"u-1001": 0}}}, "revoked_user"),
        ("the client", user, {"clients": {IDP: {"web": 0}}}, "revoked_client"),
        ("of another issuer", user, {"users": {"https://other.example": {"u-1001": NOW}}}, None),
        ("another user", user, {"users": {IDP: {"u-1002": NOW}}}, None),
        ("an id of another kind", user, {"users": {IDP: {"s-1": NOW}}, "clients": {IDP: {"u-1001": NOW}}}, None),
        (
            "a session before its user and client",
            user,
            {"sessions": {IDP: {"s-1": NOW}}, "users": {IDP: {"u-1001": NOW}}, "clients": {IDP: {"web": NOW}}},
            "revoked_session",
        ),
        (
            "a user before the client",
            user,
            {"users": {IDP: {"u-1001": NOW}}, "clients": {IDP: {"web": NOW}}},
            "revoked_user",
        ),
    ]
    documents: list[Json] = [
        None, [], {"tenants": {}}, {"users": []}, {"users": {IDP: []}}, {"users": {IDP: {"u": -1}}},
        {"users": {IDP: {"u": 1.5}}},
        {"users": {IDP: {"u": "1"}}}, {"users": {IDP: {"u": True}}}, {"users": {IDP: {"u": None}}},
        {"sessions": {IDP: {"s": -1}}},
        {"clients": None},
    ]  # fmt: skip
    operators: list[Json] = [
        None, [], {PLANNER: -1}, {PLANNER: "1"}, {PLANNER: True}, {PLANNER: 1.5}, {"planner": 1}, {"": 1},
    ]  # fmt: skip
    return {
        "accept": [
            {"name": name, "context": payload, "revocations": data, "reason": reason}
            for name, payload, data, reason in cases
        ],
        "reject": documents,
        "issued_before": {"accept": [{}, {PLANNER: 0, EDGE: NOW}], "reject": operators},
    }
