"""Composition of one policy from the bundles of the platform and of each team. The same parts give the same bytes.

Every engine decides by the composed bundle, the embedded engine and OPA alike. Its revision names each part with its serial:
`1f0c...e4a5.platform-12.pricing-3.stock-7`. The Rego of a team's part may refer only to itself and the platform, so no
team's decisions depend on another team's part.

A part is accepted whole, or it is refused and the old part stays. Other teams are not affected. There is no I/O here: the
callers (`sealbus.agents.runtime.policy.sync`, `sealbus policy push`) decide where parts come from and where the composed
bundle goes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from types import MappingProxyType
from typing import Final, TypeAlias

from sealbus.envelopes.encoding.strict_json import Json
from sealbus.envelopes.trust.keys import PublicKey
from sealbus.policies.bundle.archive import unpack_archive
from sealbus.policies.bundle.check import PACKAGE, check_bundle, check_part
from sealbus.policies.bundle.denials import DENIAL, DENIAL_BYTES, check_denial, check_fit, extended, with_denial
from sealbus.policies.bundle.format import Bundle, Manifest, merge, pack_bundle, read_bundle
from sealbus.policies.bundle.library import in_library, of_library
from sealbus.policies.bundle.ownership import (
    DISPATCH_PATH,
    MOST_TEAMS,
    PLATFORM,
    TEAMS_ROOT,
    Owner,
    dispatch_text,
    owners_of,
    team_root,
)
from sealbus.policies.bundle.revocations import (
    NONE_REVOKED,
    REVOCATIONS,
    Revocations,
    check_revocations,
    revocations_of,
    revokers_of,
)
from sealbus.policies.bundle.signing import BundleVerifier, VerifiedBundle, newer
from sealbus.policies.decision.documents import DataDocument, canonical
from sealbus.policies.lint import syntax
from sealbus.policies.lint.lint import parse_all
from sealbus.policies.lint.module import Module, PolicyRefused, Problem

_REVISION_BYTES: Final = 256
REVISION_DIGITS: Final = 64
"""Digits of the hash in the revision of a composed policy: all of them."""
FORMER_DIGITS: Final = 12
"""Those of 0.2.0 and before. This version composes what such a version decided by."""
MOST_REFUSED: Final = 256
"""Most refused denials that are remembered."""

_DenialKey: TypeAlias = "tuple[int, bytes]"
"""The serial and the hash: after a restore of the store another denial may have the same serial."""

_RESERVED: Final = ("/".join(PACKAGE), "/".join(TEAMS_ROOT))

_ENTRY: Final[syntax.Names] = ("sealbus", "authz")


def check_platform(bundle: Bundle) -> None:
    """Raise `PolicyRefused` unless `bundle` may be the platform's: the whole policy, or the part above its teams.

    With teams it must not define the roots `sealbus/authz` and `sealbus/teams`. It must have the function
    `denials(request)` in package sealbus.platform, and must not refer to a team's documents.
    """
    if owners_of(bundle) is None:
        check_bundle(bundle)
        return
    for root in bundle.roots:
        for reserved in _RESERVED:
            if _overlap(root, reserved):
                text = f"with teams no root of the platform may overlap {reserved}, as {root or 'everything'} does"
                raise PolicyRefused([Problem.of_whole(".manifest", "roots", text)])
    check_part(bundle)
    _check_rules(bundle, None, ("sealbus", "platform"), "denials")


def check_team(bundle: Bundle, team: str, library: Sequence[Module] = ()) -> None:
    """Raise `PolicyRefused`, with file and line if possible, unless `bundle` may be the part of `team`.

    It must have the team's one root, define nothing outside it, and have the function `decide(request)` in package
    sealbus.teams.<team>. It must not refer to another team. It may call only its own functions and those of `library`,
    which the platform's bundle has.
    """
    if bundle.roots != (team_root(team),):
        text = f"the only root of {team} must be {team_root(team)}, not {', '.join(bundle.roots)}"
        raise PolicyRefused([Problem.of_whole(".manifest", "roots", text)])
    check_part(bundle, library)
    _check_rules(bundle, team, (*TEAMS_ROOT, team), "decide")


def compose(platform: Bundle, teams: Mapping[str, Bundle], *, digits: int = REVISION_DIGITS) -> Bundle:
    """Compose `platform` and the bundles of the `teams` that it names into one bundle, and check the whole.

    `teams` are by name. `digits` are those of the hash in the revision. Each part has passed its own check. The library comes
    from the platform's bundle. Raises `PolicyRefused` if the parts do not fit together; with teams, the part's name precedes
    the path of the file.
    """
    owners = owners_of(platform)
    parts = {PLATFORM: platform, **{team: teams[team] for team in sorted(teams.keys() & (owners or {}).keys())}}
    modules: dict[str, str] = {}
    data: DataDocument = {}
    for name, part in parts.items():
        # The paths of a whole policy and of the library stay unchanged.
        folder = "" if owners is None else f"{name}/"
        for module in part.modules:
            library = name == PLATFORM and in_library(module.path)
            modules[module.path if library else folder + module.path] = module.text
        merge(data, part.data, "data.json")
    roots = platform.roots
    if owners is not None:
        present: list[Owner] = [owner for team, owner in owners.items() if team in parts]
        modules[DISPATCH_PATH] = dispatch_text(present)
        roots = (*platform.roots, "/".join(PACKAGE), *(team_root(owner.team) for owner in present))
    manifest = Manifest(
        revision=_revision(parts, digits), roots=roots, parts={name: part.revision for name, part in parts.items()}
    )
    try:
        raw = pack_bundle({path: text.encode() for path, text in modules.items()}, data, manifest)
    except ValueError as error:
        raise PolicyRefused([Problem.of_whole("the bundle", "bundle", f"a file cannot be packed: {error}")]) from error
    unpack_archive(raw)  # for its bounds: the parts may be too many
    bundle = Bundle(
        revision=manifest.revision,
        roots=roots,
        modules=tuple(Module(path=path, text=text) for path, text in sorted(modules.items())),
        data=data,
        file=raw,
        parts=manifest.parts,
    )
    check_bundle(bundle)
    return bundle


def _revision(parts: Mapping[str, Bundle], digits: int) -> str:
    summary = sha256()
    for name, part in parts.items():
        # The contents count, not the file: a part that was signed again has the same contents.
        summary_part: Json = [name, part.serial, part.revision, list(part.roots), part.data]
        summary.update(canonical(summary_part))
        for module in part.modules:
            summary.update(canonical([module.path, module.text]))
    text = summary.hexdigest()[:digits]
    for name, part in parts.items():
        label = f".{name}-{part.serial}"
        if len(text) + len(label) > _REVISION_BYTES - 4:
            return f"{text}..."  # the manifest names all parts
        text += label
    return text


def _check_rules(bundle: Bundle, team: str | None, package: syntax.Names, function: str) -> None:
    files, problems = parse_all(bundle.modules)
    problems.extend(reference_problems(files, team))
    if not any(_defines(file, package, function) for file in files):
        text = f"the part has no function {function}(request) in package {'.'.join(package)}"
        problems.append(Problem.of_whole("the bundle", "entrypoint", text))
    if problems:
        raise PolicyRefused(problems)


def _defines(file: syntax.File, package: syntax.Names, function: str) -> bool:
    return file.package == package and any(
        syntax.leading_names(rule.head) == (function,) and rule.kind == "function" and len(rule.arguments) == 1
        for rule in file.rules
    )


def _overlap(root: str, other: str) -> bool:
    first, second = ([part for part in root.split("/") if part] for root in (root, other))
    shorter = min(len(first), len(second))
    return first[:shorter] == second[:shorter]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartInForce:
    """One part as operators see it. `signer` is a key id."""

    name: str
    serial: int
    revision: str
    signer: str


class PartSet:
    """The parts in force, empty at first. `anchors` are the trusted keys, by key id, for the platform's bundle.

    `check` may also refuse the composed bundle (`opa.compiler`). `digits` are those of the hash in its revision. Calls block
    for some ten milliseconds. Use it from one thread at a time.
    """

    def __init__(
        self,
        anchors: Mapping[str, PublicKey],
        check: Callable[[Bundle], None] | None = None,
        *,
        digits: int = REVISION_DIGITS,
    ) -> None:
        self._anchors = anchors
        self._check = check
        self._digits = digits
        self._parts: dict[str, VerifiedBundle] = {}
        self._last: dict[str, Bundle] = {}
        """The last bundle in force of each part, so that a dropped part cannot return with an older serial."""
        self._refused: dict[str, bytes] = {}
        """The latest refused offer of each part. Another platform bundle may accept it."""
        self._problems: dict[str, str] = {}
        self._composed: Bundle | None = None
        """The composition of the parts, and with the denials."""
        self._undenied: Bundle | None = None
        """The same without the denials."""
        self._fits = False
        """Whether the composition without denials is known to take them."""
        self._denials: dict[_DenialKey, Bundle] = {}
        """The denials that the platform's bundle does not have yet."""
        self._refused_denials: OrderedDict[bytes, tuple[bytes, str]] = OrderedDict()
        """The refused denials and why, by their hashes. Another platform bundle may accept them, or have them."""
        self._unfit: dict[bytes, Bundle] = {}
        """Those of them that are signed well and do not fit the platform's bundle."""
        self._revocations = NONE_REVOKED
        self._last_revocations: VerifiedBundle | None = None
        """The revocations that were last in force.

        They are in force again when the platform names their signer again. A new list needs a later serial only while the
        platform names this signer, so a former signer cannot block its successors.
        """

    @property
    def revocations(self) -> Revocations:
        """The revocations in force. They are not in the composed bundle, so new ones need no composition."""
        return self._revocations

    @property
    def composed(self) -> Bundle | None:
        """The composed bundle in force, None before there is a platform part."""
        return self._composed

    @property
    def parts(self) -> tuple[PartInForce, ...]:
        """The parts in force, by name."""
        return tuple(
            PartInForce(
                name=name,
                serial=max(part.bundle.serial, *(serial for serial, _ in self._denials), 0)
                if name == PLATFORM
                else part.bundle.serial,
                revision=part.bundle.revision,
                signer=part.signer,
            )
            for name, part in sorted(self._parts.items())
        )

    @property
    def denials(self) -> tuple[Bundle, ...]:
        """The denials in force that the platform's bundle does not have, by serial."""
        return tuple(denial for _, denial in sorted(self._denials.items()))

    @property
    def unfit(self) -> tuple[Bundle, ...]:
        """The denials that are signed well and do not fit the platform's bundle, by serial."""
        return tuple(sorted(self._unfit.values(), key=lambda denial: denial.serial))

    def platform_data(self) -> DataDocument | None:
        """Return the data of the platform's bundle in force, with all denials; None before there is one."""
        platform = self.bundle(PLATFORM)
        if platform is None:
            return None
        data = platform.data
        for denial in self.denials:
            data = with_denial(data, denial.data)
        return data

    @property
    def problems(self) -> Mapping[str, str]:
        """Why the newest bundle of a part is not in force, by the name of the part; empty if all are in force."""
        # A copy: a thread may offer meanwhile.
        refused = [text for _, text in list(self._refused_denials.values())]
        if not refused:
            return MappingProxyType(self._problems)
        more = f" (and {len(refused) - 1} more denials are refused)" if len(refused) > 1 else ""
        return MappingProxyType({**self._problems, DENIAL: f"{refused[0]}{more}"})

    def bundle(self, name: str) -> Bundle | None:
        """Return the bundle of the part `name` that is in force."""
        part = self._parts.get(name)
        return part.bundle if part is not None else None

    def offer(self, name: str, raw: bytes) -> None:
        """Put the bundle `raw` in force as the part `name`. `problems` then names the parts that this dropped.

        Raises `PolicyRefused`, and changes nothing, if the bundle may not be in force (`BundleVerifier`, `newer`,
        `check_platform`, `check_team`, `compose`, `revocations_of`). Under the name `DENIAL` each bundle is one more denial
        (`sealbus.policies.bundle.denials`); one that the platform's bundle has changes nothing.
        """
        if name == DENIAL:
            self._offer_denial(raw)
            return
        try:
            try:
                self._offer_part(name, raw)
            except (ValueError, RecursionError) as error:
                # Whoever signs a part must not end those who read it.
                raise PolicyRefused([Problem.of_whole("the bundle", "bundle", f"unusual: {error}")]) from error
        except PolicyRefused as refused:
            # Offers under invented names must not fill the memory.
            if name in self._problems or len(self._problems) <= MOST_TEAMS:
                self._problems[name] = refused.detail
                if name != PLATFORM:
                    self._refused[name] = raw
            raise
        self._problems.pop(name, None)
        self._refused.pop(name, None)

    def _offer_part(self, name: str, raw: bytes) -> None:
        if name == PLATFORM:
            self._offer_platform(raw)
        elif name == REVOCATIONS:
            self._offer_revocations(raw)
        else:
            self._offer_team(name, raw)

    def _offer_platform(self, raw: bytes) -> None:
        platform = BundleVerifier(keys=self._anchors, scope=PLATFORM).verify(raw)
        newer(platform.bundle, self._last.get(PLATFORM))
        if platform.bundle.denials >= platform.bundle.serial:
            text = f"denials up to {platform.bundle.denials} cannot be in a bundle of serial {platform.bundle.serial}"
            raise PolicyRefused([Problem.of_whole(".manifest", "serial", text)])
        check_platform(platform.bundle)
        owners = owners_of(platform.bundle) or {}
        revokers = revokers_of(platform.bundle)
        remaining: dict[str, VerifiedBundle] = {}
        dropped: dict[str, str] = {}
        for team, part in self._parts.items():
            if team in (PLATFORM, REVOCATIONS):
                continue
            try:
                if team not in owners or part.signer not in owners[team].signers:
                    raise _unowned(team)
                self._compose(platform, {team: part})
            except PolicyRefused as refused:
                dropped[team] = refused.detail
            else:
                remaining[team] = part
        present, revocations = REVOCATIONS in self._parts, self._last_revocations
        if revocations is not None and revocations.signer in revokers:
            remaining[REVOCATIONS] = revocations
        elif present:
            dropped[REVOCATIONS] = _unowned(REVOCATIONS).detail
        composed = self._compose(platform, remaining)
        missing = {key: denial for key, denial in self._denials.items() if denial.serial > platform.bundle.denials}
        if missing:
            check_fit(composed)
        self._put(composed, {PLATFORM: platform, **remaining}, missing)
        self._problems |= dropped
        if REVOCATIONS not in remaining:
            self._revocations = NONE_REVOKED
        elif revocations is not None and not present:
            self._revocations = revocations_of(revocations.bundle)
            self._problems.pop(REVOCATIONS, None)
        self._offer_refused_again({*owners, REVOCATIONS})
        self._offer_denials_again(platform.bundle.denials)

    def _offer_revocations(self, raw: bytes) -> None:
        platform = self._parts.get(PLATFORM)
        if platform is None:
            raise _unowned(REVOCATIONS)
        revokers, last = revokers_of(platform.bundle), self._last_revocations
        part = BundleVerifier(keys=revokers, scope=REVOCATIONS).verify(raw)
        newer(part.bundle, last.bundle if last is not None and last.signer in revokers else None)
        check_revocations(part.bundle)
        self._revocations = revocations_of(part.bundle)
        self._parts = {**self._parts, REVOCATIONS: part}
        self._last_revocations = part

    def _offer_team(self, team: str, raw: bytes) -> None:
        platform = self._parts.get(PLATFORM)
        owner = (owners_of(platform.bundle) or {}).get(team) if platform is not None else None
        if platform is None or owner is None:
            raise _unowned(team)
        part = BundleVerifier(keys=owner.signers, scope=team).verify(raw)
        newer(part.bundle, self._last.get(team))
        check_team(part.bundle, team, of_library(platform.bundle.modules))
        parts = {**self._parts, team: part}
        self._put(self._compose(platform, parts), parts, self._denials)

    def _compose(self, platform: VerifiedBundle, parts: Mapping[str, VerifiedBundle]) -> Bundle:
        composed = compose(
            platform.bundle,
            {name: part.bundle for name, part in parts.items() if name not in (PLATFORM, REVOCATIONS)},
            digits=self._digits,
        )
        if self._check is not None:
            self._check(composed)
        return composed

    def _offer_denial(self, raw: bytes) -> None:
        digest = sha256(raw).digest()
        try:
            self._add_denial(raw, digest)
        except PolicyRefused as refused:
            self._refused_denials[digest] = (raw, refused.detail)
            if len(self._refused_denials) > MOST_REFUSED:
                evicted, _ = self._refused_denials.popitem(last=False)
                self._unfit.pop(evicted, None)
            raise
        self._refused_denials.pop(digest, None)

    def _add_denial(self, raw: bytes, digest: bytes) -> None:
        platform = self._parts.get(PLATFORM)
        if platform is None or self._undenied is None or self._composed is None:
            raise _unowned(DENIAL)
        entry = BundleVerifier(keys=self._anchors, scope=DENIAL).verify(raw).bundle
        newer(entry, None)
        check_denial(entry)
        key = (entry.serial, digest)
        if entry.serial <= platform.bundle.denials or key in self._denials:
            return
        if not self._fits:
            self._check_fit(self._undenied, digest, entry)
        denials = {**self._denials, key: entry}
        last = max(self._denials, default=(0, b""))
        self._composed = extended(self._composed, entry) if key > last else _with_denials(self._undenied, denials)
        self._denials = denials

    def _check_fit(self, composed: Bundle, digest: bytes, entry: Bundle) -> None:
        try:
            check_fit(composed)
        except PolicyRefused:
            self._unfit[digest] = entry
            raise
        self._fits = True

    def _offer_denials_again(self, had: int) -> None:
        """Offer the refused denials again that a new platform's bundle does not have; it has those up to serial `had`."""
        refused = list(self._refused_denials.values())
        self._refused_denials.clear()
        self._unfit.clear()
        for raw, _ in refused:
            with suppress(PolicyRefused):
                if len(raw) <= DENIAL_BYTES and read_bundle(raw).serial > had:
                    self._offer_denial(raw)

    def _put(self, composed: Bundle, parts: dict[str, VerifiedBundle], denials: dict[_DenialKey, Bundle]) -> None:
        self._composed = _with_denials(composed, denials)
        self._undenied, self._fits = composed, bool(denials)
        self._denials = denials
        self._parts = parts
        self._last |= {name: part.bundle for name, part in parts.items()}

    def _offer_refused_again(self, names: AbstractSet[str]) -> None:
        """Offer the refused parts `names` again, because the new platform bundle may accept them."""
        for team in sorted(self._refused.keys() & names):
            offer = self._offer_revocations if team == REVOCATIONS else partial(self._offer_team, team)
            try:
                offer(self._refused[team])
            except PolicyRefused as refused:
                self._problems[team] = refused.detail
            else:
                del self._problems[team], self._refused[team]


def _with_denials(composed: Bundle, denials: Mapping[_DenialKey, Bundle]) -> Bundle:
    for _, denial in sorted(denials.items()):
        composed = extended(composed, denial)
    return composed


def _unowned(team: str) -> PolicyRefused:
    text = f"the platform's bundle names no team {team[:64]!r} with this signer"
    return PolicyRefused([Problem.of_whole("the bundle", "owners", text)])


def reference_problems(files: Iterable[syntax.File], team: str | None) -> Iterator[Problem]:
    """Yield every place in `files` that may refer to another team's documents.

    `team` is the team that owns the files, None for the platform. Under `data`, a key that is not a literal may name any
    document, so such a lookup is refused above the roots of teams. References to the entry points are refused, because these
    ask every team.
    """
    for file in files:
        for imported in file.imports:
            if imported.path[0] == "data":
                yield from _reference_problem(file, imported.place, imported.path[1:], team)
        for rule in file.rules:
            for expression in syntax.every_expression(rule):
                names = _names(expression)
                if names[:1] == ("data",):
                    yield from _reference_problem(file, expression.place, names[1:], team)


def _names(expression: syntax.Expression) -> syntax.Names:
    if isinstance(expression, syntax.Call):
        return expression.name
    return syntax.leading_names(expression) if isinstance(expression, syntax.Reference | syntax.Variable) else ()


def _reference_problem(
    file: syntax.File, place: syntax.Place, path: syntax.Names, team: str | None
) -> Iterator[Problem]:
    depth = len(TEAMS_ROOT)
    above = path == TEAMS_ROOT[: len(path)]
    others = path[:depth] == TEAMS_ROOT and path[depth : depth + 1] != (team,)
    if above or others or path[: len(_ENTRY)] == _ENTRY:
        text = f"{'.'.join(('data', *path))} may be another team's: refer to your own package or to the platform's"
        yield Problem.at(file.path, place, "team", text)
