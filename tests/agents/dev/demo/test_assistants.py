"""Scenes before an edge without their door are left out, and with it played."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sealbus.agents.dev.demo.assistants import ASSISTANTS
from sealbus.agents.dev.demo.play import play
from sealbus.agents.dev.demo.scene import Outcome
from sealbus.agents.dev.demo.stage import Stage


@pytest.mark.parametrize("speaks", [False, True])
async def test_scenes_are_played_where_the_edge_speaks_their_protocol(speaks: bool) -> None:
    async def asked(protocol: str) -> bool:
        return speaks or not protocol

    async def played(stage: Stage) -> Outcome:
        return Outcome(got="allow")

    stage: Any = cast("Stage", SimpleNamespace(door=SimpleNamespace(speaks=asked)))
    scenes = [replace(scene, play=played) for scene in ASSISTANTS]
    assert all(scene.door for scene in scenes)
    without = [replace(scenes[0], door="")]
    results = [one async for one in play([*scenes, *without], stage)]
    assert len(results) == (len(scenes) if speaks else 0) + 1
