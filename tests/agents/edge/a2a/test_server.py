"""What the settings of an A2A server can say, and what is refused before anything listens."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pytest
from support.a2a import Lines, site
from support.shop import Shop

from sealbus.envelopes.errors import ConfigurationError


async def opened(folder: Path, settings: dict[str, Any], **changes: Any) -> None:
    async with site(folder, Shop().inventory, Lines().agent, settings=settings, **changes):
        pass


@pytest.mark.parametrize(
    ("settings", "changes", "told"),
    [
        ({"agents": ("absent",)}, {}, r"edge\.a2a\.agents"),
        ({"agents": ("writer",), "scopes": {"inventory.update": "x"}}, {}, r"edge\.a2a\.agents: the scope of"),
        ({"agents": ("writer",)}, {"actions": ["inventory.*"]}, r"no action that edge\.actions exposes"),
        ({"agents": ("writer",)}, {"schemas": ()}, r"edge\.schemas"),
        ({"grpc": "0.0.0.0:0"}, {}, r"edge\.a2a\.grpc 0\.0\.0\.0 is not loopback"),
        ({"card_key": Path("absent.key")}, {}, r"edge\.a2a\.card_key absent\.key cannot be read"),
        ({"push_key": Path("absent.key")}, {}, r"absent\.key cannot be read"),
    ],
)
async def test_settings_that_cannot_be_are_named(
    tmp_path: Path, settings: dict[str, Any], changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigurationError, match=told):
        await opened(tmp_path, settings, **changes)


async def test_without_its_packages_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    really = builtins.__import__

    def importing(name: str, *rest: Any) -> Any:
        if name.startswith("sealbus.agents.edge.a2a"):
            raise ModuleNotFoundError(name)
        return really(name, *rest)

    monkeypatch.setattr(builtins, "__import__", importing)
    with pytest.raises(ConfigurationError, match=r"pip install 'sealbus\[a2a\]'"):
        await opened(tmp_path, {})
