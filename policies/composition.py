"""One policy of several bundles: the platform's and each team's, always the same bytes for the same parts.

The composed bundle is what every engine decides by, the embedded one and OPA alike. Its revision names each part with
its serial: `1f0c2d3e4a5b.platform-12.pricing-3.stock-7`.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Final

from sealbus.envelopes.strict_json import Json
from sealbus.policies.bundle_format import Bundle, Manifest, merge_data, pack_bundle, read_bundle
from sealbus.policies.check import check_bundle, check_part
from sealbus.policies.dispatch import DISPATCH_PATH, dispatch_text
from sealbus.policies.documents import DataDocument, canonical
from sealbus.policies.entrypoints import PACKAGE
from sealbus.policies.forms import parse_all
from sealbus.policies.ownership import PLATFORM, TEAMS_ROOT, Owner, owners_of, team_root
from sealbus.policies.problems import PolicyRefused, Problem
from sealbus.policies.syntax import File, Names
from sealbus.policies.syntax_walk import leading_names
from sealbus.policies.team_scope import reference_problems

__all__ = ["check_platform", "check_team", "compose"]

_REVISION_BYTES: Final = 256
_RESERVED: Final = ("/".join(PACKAGE), "/".join(TEAMS_ROOT))


def check_platform(bundle: Bundle) -> None:
    """Raise `PolicyRefused` unless `bundle` may be the platform's: the whole policy, or the part above its teams.

    With teams it leaves the roots `sealbus/authz` and `sealbus/teams` alone, has the function `denials(request)` in
    package sealbus.platform, and refers to nothing of any team.
    """
    if owners_of(bundle) is None:
        check_bundle(bundle)
        return
    for root in bundle.roots:
        for reserved in _RESERVED:
            if _overlap(root, reserved):
                text = f"with teams the platform's roots leave {reserved} alone, and {root or 'everything'} does not"
                raise PolicyRefused([_problem(".manifest", "roots", text)])
    check_part(bundle)
    _check_rules(bundle, None, ("sealbus", "platform"), "denials")


def check_team(bundle: Bundle, team: str) -> None:
    """Raise `PolicyRefused` unless `bundle` may be the part of `team`: with file and line where there is one.

    It has the one root of the team and defines nothing outside of it, has the function `decide(request)` in package
    sealbus.teams.<team>, refers to no other team, and calls no function but its own.
    """
    if bundle.roots != (team_root(team),):
        text = f"the roots of {team} are {team_root(team)} alone, not {', '.join(bundle.roots)}"
        raise PolicyRefused([_problem(".manifest", "roots", text)])
    check_part(bundle)
    _check_rules(bundle, team, (*TEAMS_ROOT, team), "decide")


def compose(platform: Bundle, teams: Mapping[str, Bundle]) -> Bundle:
    """Return the bundle of `platform` and of those of `teams` (by name) that it names, checked as a whole.

    Each has passed its own check. Raises `PolicyRefused`, with the part before the path of the file where there are
    teams, if they do not go together.
    """
    owners = owners_of(platform)
    parts = {PLATFORM: platform, **{team: teams[team] for team in sorted(teams.keys() & (owners or {}).keys())}}
    modules: dict[str, bytes] = {}
    data: DataDocument = {}
    for name, part in parts.items():
        # A whole policy keeps the paths that its authors know.
        folder = "" if owners is None else f"{name}/"
        modules |= {folder + module.path: module.text.encode() for module in part.modules}
        merge_data(data, "data.json", canonical(part.data))
    roots = platform.roots
    if owners is not None:
        present: list[Owner] = [owner for team, owner in owners.items() if team in parts]
        modules[DISPATCH_PATH] = dispatch_text(present).encode()
        roots = (*platform.roots, "/".join(PACKAGE), *(team_root(owner.team) for owner in present))
    manifest = Manifest(
        revision=_revision(parts), roots=roots, parts={name: part.revision for name, part in parts.items()}
    )
    bundle = read_bundle(pack_bundle(modules, data, manifest))
    check_bundle(bundle)
    return bundle


def _revision(parts: Mapping[str, Bundle]) -> str:
    summary = sha256()
    for name, part in parts.items():
        # Of the contents, not of the file: a part that was signed again says the same.
        said: Json = [name, part.serial, part.revision, list(part.roots), part.data]
        summary.update(canonical(said))
        for module in part.modules:
            summary.update(canonical([module.path, module.text]))
    text = summary.hexdigest()[:12]
    for name, part in parts.items():
        one = f".{name}-{part.serial}"
        if len(text) + len(one) > _REVISION_BYTES - 4:
            return f"{text}..."  # the manifest has them all
        text += one
    return text


def _check_rules(bundle: Bundle, team: str | None, package: Names, function: str) -> None:
    files, problems = parse_all(bundle.modules)
    problems.extend(reference_problems(files, team))
    if not any(_defines(file, package, function) for file in files):
        text = f"the part has no function {function}(request) in package {'.'.join(package)}"
        problems.append(_problem("the bundle", "entrypoint", text))
    if problems:
        raise PolicyRefused(problems)


def _defines(file: File, package: Names, function: str) -> bool:
    return file.package == package and any(
        leading_names(rule.head) == (function,) and rule.kind == "function" and len(rule.arguments) == 1
        for rule in file.rules
    )


def _overlap(one: str, other: str) -> bool:
    first, second = ([part for part in root.split("/") if part] for root in (one, other))
    shorter = min(len(first), len(second))
    return first[:shorter] == second[:shorter]


def _problem(file: str, form: str, text: str) -> Problem:
    return Problem(file=file, line=0, column=0, form=form, text=text)
