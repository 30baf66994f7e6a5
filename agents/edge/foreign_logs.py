"""Reduce the logs of protocol packages to the places of their warnings: their texts may hold what clients sent."""

from __future__ import annotations

import logging
from typing import Final

from sealbus.bus.telemetry import OperatorLog

_logger: Final = logging.getLogger(__name__)


class _Places(logging.Handler):
    """Logs that a package warned, and where; its texts and tracebacks may hold what clients sent."""

    def __init__(self, package: str) -> None:
        super().__init__(logging.WARNING)
        self._package = package
        # A client can cause a warning with each of its requests.
        self._operator_log = OperatorLog(_logger)

    def emit(self, record: logging.LogRecord) -> None:
        """Log one line."""
        self._operator_log.warning(
            "%s: %s at %s:%d", self._package, record.levelname.lower(), record.module, record.lineno
        )


def quieten(package: str) -> None:
    """Make `package` log only places, in this process, from now on."""
    logger = logging.getLogger(package)
    logger.handlers[:] = [_Places(package)]
    logger.propagate = False
    # At lower levels some packages format what clients sent, even if nothing is logged.
    logger.setLevel(logging.WARNING)
