"""The parts in force and what they compose to: each offer is taken whole, or refused and the old one stays.

No I/O: whoever brings parts (`sealbus.agents.policy_sync`, `sealbus policy push`) decides where they come from and where the
composed bundle goes. A part that was refused costs nobody else anything: other teams go on pushing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from sealbus.envelopes.keys import PublicKey
from sealbus.policies.bundle_format import Bundle
from sealbus.policies.bundle_signing import BundleVerifier, VerifiedBundle, newer
from sealbus.policies.composition import check_platform, check_team, compose
from sealbus.policies.ownership import MOST_TEAMS, PLATFORM, Owner, owners_of
from sealbus.policies.problems import PolicyRefused, Problem

__all__ = ["PartInForce", "PartSet"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartInForce:
    """One part for operators. `signer` is a key id."""

    name: str
    serial: int
    revision: str
    signer: str


class PartSet:
    """Starts empty. `anchors` are the keys, by key id, that sign the platform's bundle: all that is trusted beforehand.

    `check` may refuse what the parts come to, too (`opa_check`). Blocking work of some ten milliseconds; use it from one
    thread at a time.
    """

    def __init__(self, anchors: Mapping[str, PublicKey], check: Callable[[Bundle], None] | None = None) -> None:
        self._anchors = anchors
        self._check = check
        self._parts: dict[str, VerifiedBundle] = {}
        self._last: dict[str, Bundle] = {}
        """What each part was when it was last in force, so that one that was dropped cannot come back older."""
        self._refused: dict[str, bytes] = {}
        """What a team offered last, where it was refused: another platform bundle may think otherwise of it."""
        self._problems: dict[str, str] = {}
        self._composed: Bundle | None = None

    @property
    def composed(self) -> Bundle | None:
        """The bundle in force, None before there was a platform's."""
        return self._composed

    @property
    def parts(self) -> tuple[PartInForce, ...]:
        """The parts in force, by name."""
        return tuple(
            PartInForce(name=name, serial=one.bundle.serial, revision=one.bundle.revision, signer=one.signer)
            for name, one in sorted(self._parts.items())
        )

    @property
    def problems(self) -> Mapping[str, str]:
        """Why the newest bundle of a part is not in force, by the name of the part; empty where all are."""
        return MappingProxyType(self._problems)

    def bundle(self, name: str) -> Bundle | None:
        """Return the bundle of the part `name` that is in force."""
        part = self._parts.get(name)
        return part.bundle if part is not None else None

    def offer(self, name: str, raw: bytes) -> None:
        """Put the bundle `raw` in force as the part `name`, if it may be: see `problems` for the parts that fell out.

        Raises `PolicyRefused` if it may not (`BundleVerifier`, `newer`, `check_platform`, `check_team`, `compose`): all
        stays as it is.
        """
        try:
            if name == PLATFORM:
                self._offer_platform(raw)
            else:
                self._offer_team(name, raw)
        except PolicyRefused as refused:
            # Whoever can offer under names of his choice does not fill our memory with them.
            if name in self._problems or len(self._problems) <= MOST_TEAMS:
                self._problems[name] = refused.detail
                if name != PLATFORM:
                    self._refused[name] = raw
            raise
        self._problems.pop(name, None)
        self._refused.pop(name, None)

    def _offer_platform(self, raw: bytes) -> None:
        platform = BundleVerifier(keys=self._anchors, scope=PLATFORM).verify(raw)
        newer(platform.bundle, self._last.get(PLATFORM))
        check_platform(platform.bundle)
        owners = owners_of(platform.bundle) or {}
        kept: dict[str, VerifiedBundle] = {}
        fallen: dict[str, str] = {}
        for team, part in self._parts.items():
            if team == PLATFORM:
                continue
            try:
                if team not in owners or part.signer not in owners[team].signers:
                    raise _unowned(team)
                self._compose(platform, {team: part})
            except PolicyRefused as refused:
                fallen[team] = refused.detail
            else:
                kept[team] = part
        self._put(self._compose(platform, kept), {PLATFORM: platform, **kept})
        self._problems |= fallen
        self._ask_again(owners)

    def _offer_team(self, team: str, raw: bytes) -> None:
        platform = self._parts.get(PLATFORM)
        owner = (owners_of(platform.bundle) or {}).get(team) if platform is not None else None
        if platform is None or owner is None:
            raise _unowned(team)
        part = BundleVerifier(keys=owner.signers, scope=team).verify(raw)
        newer(part.bundle, self._last.get(team))
        check_team(part.bundle, team)
        parts = {**self._parts, team: part}
        self._put(self._compose(platform, parts), parts)

    def _compose(self, platform: VerifiedBundle, parts: Mapping[str, VerifiedBundle]) -> Bundle:
        composed = compose(platform.bundle, {name: part.bundle for name, part in parts.items() if name != PLATFORM})
        if self._check is not None:
            self._check(composed)
        return composed

    def _put(self, composed: Bundle, parts: dict[str, VerifiedBundle]) -> None:
        self._composed = composed
        self._parts = parts
        self._last |= {name: part.bundle for name, part in parts.items()}

    def _ask_again(self, owners: Mapping[str, Owner]) -> None:
        """Offer once more what teams offered before: it may be the new platform bundle that makes them one."""
        for team in sorted(self._refused.keys() & owners.keys()):
            try:
                self._offer_team(team, self._refused[team])
            except PolicyRefused as refused:
                self._problems[team] = refused.detail
            else:
                del self._problems[team], self._refused[team]


def _unowned(team: str) -> PolicyRefused:
    text = f"the platform's bundle names no team {team[:64]!r} with this signer"
    return PolicyRefused([Problem(file="the bundle", line=0, column=0, form="owners", text=text)])
