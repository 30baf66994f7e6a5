from __future__ import annotations

import pytest

from sealbus.bus.nats.connection.server_version import LEAST, too_old


@pytest.mark.parametrize("version", ["2.12.7", "v2.12.7", "2.12.10", "2.14.0", "2.15.0-dev", "2.15.1", "3.0.0+build"])
def test_what_is_new_enough_passes(version: str) -> None:
    assert too_old(version) == ""


@pytest.mark.parametrize("version", ["2.12.6", "2.11.16", "2.9.25", "1.99.99", "0.0.0"])
def test_what_is_older_is_named_with_what_is_needed(version: str) -> None:
    assert too_old(version) == (f"the server is nats-server {version}; nats-server 2.12.7 or newer is needed")


@pytest.mark.parametrize("version", [None, 2, "", "2.15", "2.15.1.1", "two", "2.15.1\n", "٢.15.1", ["2.15.1"]])
def test_who_does_not_say_is_not_used(version: object) -> None:
    assert "does not state its version" in too_old(version)


def test_the_least_is_that_of_the_documents() -> None:
    assert LEAST == (2, 12, 7)
