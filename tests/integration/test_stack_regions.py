"""Two regions with real SPIRE, as `make regions` starts them: an agent answers across them, and AUDIT is mirrored."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest
from stack.ports import Ports
from stack.program import output_of
from stack.regions import HOME, OTHER, RegionPorts, open_regions
from stack.roster import AGENTS, PEOPLE
from stack.run_as import as_user
from stack.site import SEALBUS, Site
from support.spire import require_spire
from support.workload_api import short_folder

pytestmark = [
    pytest.mark.spire,
    pytest.mark.nats,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="the stack needs root (a user for each agent): run the tests as root"),
]


async def test_an_agent_of_the_other_region_answers_one_at_home_and_there_is_the_mirror() -> None:
    require_spire()
    inventory = next(replace(agent, engine="embedded") for agent in AGENTS if agent.name == "inventory")
    with short_folder() as folder, Ports.held() as ports, RegionPorts.held() as servers:
        folder.chmod(0o711)
        async with open_regions(Site(folder=folder, ports=ports), servers) as regions:
            command = [SEALBUS, "call", "pricing.appraise", '{"item_id": "42", "seconds": 0}', "--as", "inventory"]
            answer = await output_of(
                [*as_user(inventory.uid, inventory.gid), *command], environment=regions.environment(HOME, inventory)
            )
            assert json.loads(answer)["item_id"] == "42"
            operator = regions.environment(OTHER, PEOPLE[0])
            said = await output_of([SEALBUS, "streams", "plan", "--mirror", "--as", "operator"], environment=operator)
            # It is as declared, by a real server's own word: nothing would be changed.
            assert said == b""
