"""The entry points of a policy of several teams: written by us from who owns what, so that nobody can write them.

The platform's word comes first, and it is a list of reasons to deny: it has no way to allow. Then the one team that
owns the action's agent decides. Whatever is undefined on the way denies.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final

from sealbus.policies.ownership import Owner

__all__ = ["DISPATCH_PATH", "dispatch_text"]

DISPATCH_PATH: Final = "sealbus/authz/dispatch.rego"

_HEAD: Final = """# Written from data.sealbus.platform.owners when the parts are composed.
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

_NOBODY: Final = """
teams := {}

of_team(team, request) := {"allow": false, "reasons": [team], "obligations": [], "policy": "platform"} if {
	request.action.name
}
"""
"""Asked by nobody, for no agent has a team; what is called must be there."""


def dispatch_text(owners: Iterable[Owner]) -> str:
    """Return the Rego of the entry points for the teams `owners`, each of which has a bundle with `decide(request)`.

    An action is of the agent before its first dot, a reply too: `pricing.quote.reply` is the word of pricing. One of an
    agent that no team owns is denied.
    """
    decided = [owner for owner in owners if owner.agents]
    if not decided:
        return _HEAD + _NOBODY
    agents = {agent: owner.team for owner in decided for agent in owner.agents}
    branches = [
        f'{{\n\tteam == "{owner.team}"\n\tanswer := data.sealbus.teams.{owner.team}.decide(request)\n}}'
        for owner in decided
    ]
    table = json.dumps(agents, sort_keys=True, indent="\t")  # a line has at most 1,024 characters in regorus
    return (
        f"{_HEAD}\nteams := {table}\n\nof_team(team, request) := answer if "
        + " else := answer if ".join(branches)
        + "\n"
    )
