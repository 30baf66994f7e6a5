"""Reads revocations with nothing of sealbus, written from envelopes/SPEC.md section 7, "Revocations"."""

from __future__ import annotations

from typing import Any

from independent.verify_export import SECOND, is_spiffe, need

__all__ = ["read_issued_before", "read_revocations", "revoked"]


def read_issued_before(document: Any) -> dict[str, int]:
    need(type(document) is dict and all(map(is_spiffe, document)), "policy_error", "no SPIFFE IDs")
    need(all(type(time) is int and time >= 0 for time in document.values()), "policy_error", "no times")
    return document  # type: ignore[no-any-return]


def read_revocations(document: Any) -> dict[str, dict[str, dict[str, int]]]:
    need(type(document) is dict and set(document) <= {"users", "sessions", "clients"}, "policy_error", "members")
    for issuers in document.values():
        need(type(issuers) is dict, "policy_error", "not by issuer")
        for ids in issuers.values():
            need(type(ids) is dict, "policy_error", "not by id")
            need(all(type(time) is int and time >= 0 for time in ids.values()), "policy_error", "no times")
    return document  # type: ignore[no-any-return]


def revoked(revocations: dict[str, dict[str, dict[str, int]]], context: dict[str, Any]) -> str | None:
    """Why a context is revoked, or None."""

    def of(kind: str, ident: str) -> int | None:
        return revocations.get(kind, {}).get(context["idp"], {}).get(ident)

    if of("sessions", context["sid"]) is not None:
        return "revoked_session"
    time = of("users", context["sub"])
    if time is not None and context.get("aut", 0) // SECOND * SECOND <= time:
        return "revoked_user"
    return "revoked_client" if of("clients", context["cid"]) is not None else None
