from __future__ import annotations

import logging

import pytest

from sealbus.agents.edge.foreign_logs import quieten


def test_only_where_a_package_complained_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("foreign_package.inner")
    quieten("foreign_package")
    caplog.set_level(logging.DEBUG)
    try:
        raise ValueError("a secret")
    except ValueError:
        logger.exception("about %s", "a secret")
    logger.info("a secret")
    [told] = caplog.records
    assert told.name == "sealbus.agents.edge.foreign_logs"
    assert told.getMessage().startswith("foreign_package: error at test_foreign_logs:")
    assert "secret" not in caplog.text


def test_a_client_that_has_it_complain_without_end_fills_no_log(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("foreign_package")
    quieten("foreign_package")
    for _ in range(1_000):
        logger.warning("a secret")
    assert 1 <= len(caplog.records) <= 40
