"""Ownership of the parts of a policy: a document in the signed platform bundle, and the entry points made from it.

`data.sealbus.platform.owners`, by the name of a team::

    {"stock": {"agents": {"inventory": true}, "signers": {"<key id>": "-----BEGIN PUBLIC KEY-----..."}}}

The team `stock` owns the root `sealbus/teams/stock`: only a bundle signed by one of its signers may define it. The team
decides every action of its agents (`inventory.update`). A platform bundle without the document is the whole policy.

The entry points of a policy with teams are generated from this document, so no part can write them. First the platform gives
a list of reasons to deny; it cannot allow. Then the team that owns the action's agent decides. Any undefined value denies.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from sealbus.envelopes.encoding.strict_json import Json
from sealbus.envelopes.trust.keys import PublicKey
from sealbus.envelopes.trust.names import is_token
from sealbus.policies.bundle.format import Bundle
from sealbus.policies.bundle.revocations import REVOCATIONS, keys_by_id
from sealbus.policies.lint.module import PolicyRefused, Problem

PLATFORM: Final = "platform"
"""The name of the part above all teams, and the scope of its signature."""
OWNERS: Final = ("sealbus", "platform", "owners")
TEAMS_ROOT: Final = ("sealbus", "teams")
MOST_TEAMS: Final = 256
MOST_SIGNERS: Final = 16

_TEAM: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")
"""A valid name in a Rego package. A keyword would make a package without a valid reference, and fail in composition."""

DISPATCH_PATH: Final = "sealbus/authz/dispatch.rego"

_DISPATCH_HEAD: Final = """# Written from data.sealbus.platform.owners when the parts are composed.
package sealbus.authz

decision := decide(input)

batch := [decide(request) | some request in input.batch]

decide(request) := answer if {
	data.sealbus.platform.denials(request) == []
	parts := split(request.action.name, ".")
	agent := parts[0]
	answer := of_team(teams[agent], request)
} else := {"allow": false, "reasons": words, "obligations": [], "policy": "platform"} if {
	words := data.sealbus.platform.denials(request)
	words != []
} else := {"allow": false, "reasons": ["no_decision"], "obligations": [], "policy": "platform"}
"""

_DISPATCH_TO_NOBODY: Final = """
teams := {}

of_team(team, request) := {"allow": false, "reasons": [team], "obligations": [], "policy": "platform"} if {
	request.action.name
}
"""
"""The function must exist, but is never called, because no agent has a team."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """One team: the agents whose actions it decides, and the keys (by `key_id`) that sign its bundle."""

    team: str
    agents: tuple[str, ...]
    signers: Mapping[str, PublicKey]


def team_root(team: str) -> str:
    """Return the one root that a team's bundle has."""
    return "/".join((*TEAMS_ROOT, team))


def is_part(name: str) -> bool:
    """Return whether `name` can be the name of a part: the platform, or a team."""
    return _TEAM.fullmatch(name) is not None


def owners_of(platform: Bundle) -> Mapping[str, Owner] | None:
    """Return the teams that a platform bundle names, sorted by name, or None if it is the whole policy.

    Raises `PolicyRefused` for a malformed document, an agent of two teams, or a key under another key's id.
    """
    value: Json = platform.data
    for name in OWNERS:
        if not isinstance(value, dict) or name not in value:
            return None
        value = value[name]
    if not isinstance(value, dict) or len(value) > MOST_TEAMS:
        raise _refused(f"not an object of at most {MOST_TEAMS} teams")
    owners = {team: _owner(team, entry) for team, entry in sorted(value.items())}
    owned: dict[str, str] = {}
    for owner in owners.values():
        for agent in owner.agents:
            if agent in owned:
                raise _refused(f"{agent} belongs to both {owned[agent]} and {owner.team}")
            owned[agent] = owner.team
    return MappingProxyType(owners)


def _owner(team: str, entry: Json) -> Owner:
    if _TEAM.fullmatch(team) is None or team in (PLATFORM, REVOCATIONS):
        raise _refused(f"{team[:64]!r} is not the name of a team: lower-case letters, digits and _, at most 32")
    agents, signers = (entry.get("agents"), entry.get("signers")) if isinstance(entry, dict) else (None, None)
    if not isinstance(entry, dict) or entry.keys() != {"agents", "signers"}:
        raise _refused(f"{team} must have exactly agents and signers")
    if not isinstance(agents, dict) or not all(is_token(agent) and yes is True for agent, yes in agents.items()):
        raise _refused(f'{team}.agents are not names of agents, each with true, such as {{"inventory": true}}')
    if not isinstance(signers, dict) or not 1 <= len(signers) <= MOST_SIGNERS:
        raise _refused(f"{team}.signers are not 1 to {MOST_SIGNERS} public keys by key id")
    try:
        keys = keys_by_id(signers, name=f"{team}.signers")
    except ValueError as error:
        raise _refused(str(error)) from error
    return Owner(team=team, agents=tuple(sorted(agents)), signers=keys)


def _refused(text: str) -> PolicyRefused:
    return PolicyRefused([Problem.of_whole("data.json", "owners", f"data.{'.'.join(OWNERS)}: {text}")])


def dispatch_text(owners: Iterable[Owner]) -> str:
    """Return the Rego of the entry points for the teams `owners`, each of which has a bundle with `decide(request)`.

    An action belongs to the agent before its first dot, also a reply: `pricing.quote.reply` belongs to pricing. An action is
    denied if no team owns its agent.
    """
    decided = [owner for owner in owners if owner.agents]
    if not decided:
        return _DISPATCH_HEAD + _DISPATCH_TO_NOBODY
    agents = {agent: owner.team for owner in decided for agent in owner.agents}
    branches = [
        f'{{\n\tteam == "{owner.team}"\n\tanswer := data.sealbus.teams.{owner.team}.decide(request)\n}}'
        for owner in decided
    ]
    table = json.dumps(agents, sort_keys=True, indent="\t")  # a line has at most 1,024 characters in regorus
    return (
        f"{_DISPATCH_HEAD}\nteams := {table}\n\nof_team(team, request) := answer if "
        + " else := answer if ".join(branches)
        + "\n"
    )
