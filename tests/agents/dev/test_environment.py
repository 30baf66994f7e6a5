from __future__ import annotations

import socket
from pathlib import Path

import pytest

from sealbus.agents.dev.environment import DevOptions, open_environment
from sealbus.envelopes.errors import ConfigurationError


@pytest.mark.parametrize("option", ["edge_port", "idp_port"])
async def test_a_port_that_is_taken_is_one_line_with_the_option_that_chooses_another(
    tmp_path: Path, option: str
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError) as caught:
            async with open_environment(DevOptions(folder=tmp_path / "dev", agents=(), **{option: port})):
                raise AssertionError
    assert f"port {port} of 127.0.0.1 cannot be used: Address already in use" in caught.value.detail
    assert f"--{option.replace('_', '-')}" in caught.value.detail
    assert "\n" not in caught.value.detail
    assert not (tmp_path / "dev").exists()
