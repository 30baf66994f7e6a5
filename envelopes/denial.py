"""What a denial may tell: the policy's reasons, remedies, and who denied (SPEC.md section 7, "What a denial tells").

All of it informs, and none of it permits anything: a remedy is the word of the policy that denied, and of `via` only the
first is known to have said so, because it signed the message.
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
"""Most remedies of one denial; further ones are not told."""

DENIERS: Final = 8
"""Most that `via` names: as many as a chain has ancestors."""

SECONDS: Final = 31_536_000
"""Longest time in a remedy, a year."""

_QUOTABLE: Final = re.compile(r"[!#-\[\]-~]+(?: [!#-\[\]-~]+)*")
"""RFC 6749 appendix A.4, a `scope`: what stands in a quoted string of a header field as it is. So must an `acr`."""
_ACTION: Final = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")
_AGENT: Final = re.compile(r"spiffe://[a-z0-9._-]{1,255}(?:/[A-Za-z0-9._-]+)+")
_CODE: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
"""`CODE_FORM` of the errors, which cannot be imported from here: they have explanations."""


class RemedyKind(StrEnum):
    """What would help."""

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
    """One thing that would help, as the policy that denied says. Raises `ValueError` for an invalid one.

    A login of the user by one of the methods `acr` (separated by spaces), at most `max_age` seconds ago; an access token with
    `scope`; an approval, if `action` is submitted as a task; a person to ask, `whom`; another try `after` seconds. A kind has
    its own members, all of them but for those of a login, and no others.
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
        # Any other character could move a terminal's cursor, or turn the direction of what follows.
        if not _is_bounded(self.whom) or not self.whom.isprintable():
            raise ValueError("whom is a short printable text")
        for seconds, least in ((self.max_age, 0), (self.after, 1)):
            if seconds is not None and not (type(seconds) is int and least <= seconds <= SECONDS):
                raise ValueError(f"max_age and after are whole seconds, at most {SECONDS}")

    @classmethod
    def parse(cls, members: object) -> Remedy:
        """Return the remedy that a JSON object says; raise `ValueError` for anything else."""
        if type(members) is not dict:
            raise ValueError("a remedy is an object")
        entries = dict(members)
        kind = RemedyKind(entries.pop("kind", ""))
        if not entries.keys() <= _MEMBERS[kind]:
            raise ValueError(f"a remedy of the kind {kind} has other members")
        return cls(kind=kind, **entries)

    def members(self) -> dict[str, str | int]:
        """Return it as a JSON object, without what is not said."""
        members: dict[str, str | int] = {"kind": self.kind.value}
        for name in ("acr", "max_age", "scope", "action", "whom", "after"):
            value = getattr(self, name)
            if value is not None and value != "":
                members[name] = value
        return members


@dataclass(frozen=True, slots=True)
class Denier:
    """One that denied: its SPIFFE ID, the action that it was asked for, its code. Raises `ValueError` for an invalid one.

    Texts of the right form, and no more: who is told of it trusts whoever signed it, not the agents that it names.
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
    """What is told of one denial, empty where the policy does not let it be shown.

    `via` says who denied what: the one that was asked first, the one whose own policy denied last.
    """

    reasons: tuple[str, ...] = ()
    remedies: tuple[Remedy, ...] = ()
    via: tuple[Denier, ...] = ()

    def passed_on(self, by: Denier) -> Explanation:
        """Return what `by` tells, which denies because of it: itself in front, the middle dropped beyond `DENIERS`."""
        via = (by, *self.via)
        if len(via) > DENIERS:
            via = (*via[: DENIERS // 2], *via[DENIERS // 2 - DENIERS :])
        return self._replace(via=via)

    def told_by(self, signer: str) -> Explanation:
        """Return it without a `via` that does not begin with `signer`, the SPIFFE ID whose message tells it."""
        return self if not self.via or self.via[0].agent == signer else self._replace(via=())

    def members(self) -> dict[str, object]:
        """Return the members of a JSON object that tell it, none for what is empty."""
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
    """Return the valid remedies of a JSON array, at most `REMEDIES`; a denial is one whatever its remedies look like."""
    remedies: list[Remedy] = []
    for members in array if isinstance(array, list) else ():
        if len(remedies) == REMEDIES:
            break
        with suppress(ValueError):
            remedies.append(Remedy.parse(members))
    return tuple(remedies)


def via_of(array: object) -> tuple[Denier, ...]:
    """Return who denied by a JSON array of at most `DENIERS`; nobody for anything else: a chain with gaps is none."""
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
