"""What packages of other protocols log: where they complained, and nothing that clients sent."""

from __future__ import annotations

import logging
from typing import Final

from sealbus.bus.telemetry import OperatorLog

_logger: Final = logging.getLogger(__name__)


class _Places(logging.Handler):
    """Says that a package complained, and where: its texts and tracebacks may hold what clients sent."""

    def __init__(self, package: str) -> None:
        super().__init__(logging.WARNING)
        self._package = package
        # A client can have a package complain with each of its requests.
        self._operator_log = OperatorLog(_logger)

    def emit(self, record: logging.LogRecord) -> None:
        """Log one line."""
        self._operator_log.warning(
            "%s: %s at %s:%d", self._package, record.levelname.lower(), record.module, record.lineno
        )


def quieten(package: str) -> None:
    """Have `package` log places only, in this process, for good."""
    logger = logging.getLogger(package)
    logger.handlers[:] = [_Places(package)]
    logger.propagate = False
    # Below that, some format what clients sent before anybody asks for it.
    logger.setLevel(logging.WARNING)
