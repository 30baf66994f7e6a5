"""The explanation of a denial: reasons, remedies and the agents that denied (SPEC.md section 7, "What a denial tells").

An explanation informs and permits nothing. A remedy is a claim of the policy that denied. Only the first entry of `via` is
proved, because that agent signed the message.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from sealbus.envelopes.limits import DEFAULT_LIMITS

REMEDIES: Final = 4
"""Most remedies of one denial; further remedies are left out."""

DENIERS: Final = 8
"""Most entries of `via`: as many as a chain has ancestors."""

SECONDS: Final = 31_536_000
"""Longest time in a remedy, a year."""

_QUOTABLE: Final = re.compile(r"[!#-\[\]-~]+(?: [!#-\[\]-~]+)*")
"""A `scope` of RFC 6749 appendix A.4, which needs no escape in a quoted string of a header field. An `acr` has this form
too."""
_ACTION: Final = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")
_AGENT: Final = re.compile(r"spiffe://[a-z0-9._-]{1,255}(?:/[A-Za-z0-9._-]+)+")
_CODE: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
"""`errors.CODE_FORM`, which cannot be imported here: `errors` imports this module."""


class RemedyKind(StrEnum):
    """The kind of a remedy: what the requester may do."""

    LOGIN = "login"
    SCOPE = "scope"
    APPROVAL = "approval"
    ASK = "ask"
    LATER = "later"


_MEMBERS: Final[Mapping[str, frozenset[str]]] = {
    RemedyKind.LOGIN: frozenset({"acr", "max_age"}),
    RemedyKind.SCOPE: frozenset({"scope"}),
    RemedyKind.APPROVAL: frozenset({"action"}),
    RemedyKind.ASK: frozenset({"whom"}),
    RemedyKind.LATER: frozenset({"after"}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """A way to have a request allowed, as the denying policy states it. Raises `ValueError` for an invalid remedy.

    `login`: the user logs in by one of the methods `acr` (separated by spaces), at most `max_age` seconds ago. `scope`: an
    access token with `scope`. `approval`: `action`, submitted as a task, can be approved. `ask`: `whom` to ask. `later`:
    another try after `after` seconds. A remedy has exactly the members of its kind; those of a login are optional.
    """

    kind: RemedyKind
    acr: str = ""
    max_age: int | None = None
    scope: str = ""
    action: str = ""
    whom: str = ""
    after: int | None = None

    def __post_init__(self) -> None:
        own = _MEMBERS.get(self.kind)
        if own is None:
            raise ValueError("an unknown kind of remedy")
        present = self.members().keys() - {"kind"}
        if not present <= own or (present != own and self.kind != RemedyKind.LOGIN):
            raise ValueError(f"a remedy of the kind {self.kind} has other members")
        for text, form in ((self.acr, _QUOTABLE), (self.scope, _QUOTABLE), (self.action, _ACTION)):
            if not _is_bounded(text) or (text and not form.fullmatch(text)):
                raise ValueError("acr, scope and action are short and of the form that they have in a request")
        # Any other character could move a terminal's cursor, or change the direction of the following text.
        if not _is_bounded(self.whom) or not self.whom.isprintable():
            raise ValueError("whom is a short printable text")
        for seconds, least in ((self.max_age, 0), (self.after, 1)):
            if seconds is not None and not (type(seconds) is int and least <= seconds <= SECONDS):
                raise ValueError(f"max_age and after are whole seconds, at most {SECONDS}")

    @classmethod
    def parse(cls, members: object) -> Remedy:
        """Return the remedy in a JSON object; raise `ValueError` for any other value."""
        if type(members) is not dict:
            raise ValueError("a remedy is an object")
        entries = dict(members)
        kind = RemedyKind(entries.pop("kind", ""))
        if not entries.keys() <= _MEMBERS[kind]:
            raise ValueError(f"a remedy of the kind {kind} has other members")
        return cls(kind=kind, **entries)

    def members(self) -> dict[str, str | int]:
        """Return the remedy as a JSON object, without empty members."""
        members: dict[str, str | int] = {"kind": self.kind.value}
        for name in ("acr", "max_age", "scope", "action", "whom", "after"):
            value = getattr(self, name)
            if value is not None and value != "":
                members[name] = value
        return members


@dataclass(frozen=True, slots=True)
class Denier:
    """An agent that denied: its SPIFFE ID, the action that was requested of it, and its code.

    Raises `ValueError` for texts of another form. Nothing else is checked: a reader trusts the signer of the message, not
    the agents that it names.
    """

    agent: str
    action: str
    code: str

    def __post_init__(self) -> None:
        if not _is_bounded(self.agent, DEFAULT_LIMITS.spiffe_id_bytes) or not _AGENT.fullmatch(self.agent):
            raise ValueError("not the form of a SPIFFE ID")
        if not _is_bounded(self.action) or not _ACTION.fullmatch(self.action):
            raise ValueError("not the form of an action")
        if type(self.code) is not str or not _CODE.fullmatch(self.code):
            raise ValueError("not the form of a code")


class Explanation(NamedTuple):
    """The explanation of one denial, empty as far as the policy does not let it be shown.

    `via` are the agents that denied: the first is the agent that was requested, the last the agent whose own policy denied.
    """

    reasons: tuple[str, ...] = ()
    remedies: tuple[Remedy, ...] = ()
    via: tuple[Denier, ...] = ()

    def passed_on(self, by: Denier) -> Explanation:
        """Return the explanation by `by`, which denies because of this denial: `by` comes first in `via`.

        Beyond `DENIERS` entries, the middle is dropped.
        """
        via = (by, *self.via)
        if len(via) > DENIERS:
            via = (*via[: DENIERS // 2], *via[DENIERS // 2 - DENIERS :])
        return self._replace(via=via)

    def told_by(self, signer: str) -> Explanation:
        """Return the explanation without `via`, unless that begins with `signer`, the SPIFFE ID that signed the message."""
        return self if not self.via or self.via[0].agent == signer else self._replace(via=())

    def members(self) -> dict[str, object]:
        """Return the members of a JSON object for the explanation, without empty ones."""
        members: dict[str, object] = {}
        if self.reasons:
            members["reasons"] = list(self.reasons)
        if self.remedies:
            members["remedy"] = [remedy.members() for remedy in self.remedies]
        if self.via:
            members["via"] = [[denier.agent, denier.action, denier.code] for denier in self.via]
        return members


NOTHING_TOLD: Final = Explanation()


def remedies_of(array: object) -> tuple[Remedy, ...]:
    """Return the valid remedies of a JSON array, at most `REMEDIES`; invalid ones do not invalidate the denial."""
    remedies: list[Remedy] = []
    for members in array if isinstance(array, list) else ():
        if len(remedies) == REMEDIES:
            break
        with suppress(ValueError):
            remedies.append(Remedy.parse(members))
    return tuple(remedies)


def via_of(array: object) -> tuple[Denier, ...]:
    """Return the agents that denied, from a JSON array of at most `DENIERS`.

    The result is empty for any other value, and if one entry is invalid: a chain with gaps would mislead.
    """
    if not isinstance(array, list) or len(array) > DENIERS:
        return ()
    if not all(isinstance(entry, list) and len(entry) == 3 for entry in array):
        return ()
    try:
        return tuple(Denier(*entry) for entry in array)
    except ValueError:
        return ()


def _is_bounded(text: object, limit: int = DEFAULT_LIMITS.text_bytes) -> bool:
    return type(text) is str and len(text) <= limit and len(text.encode(errors="replace")) <= limit
