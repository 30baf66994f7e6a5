"""What operators see of a process: counters, gauges and histograms, and one log line per notable message."""

from sealbus.bus.telemetry.counters import CONTENT_TYPE, Counters, Histogram
from sealbus.bus.telemetry.operator_log import OperatorLog

__all__ = ["CONTENT_TYPE", "Counters", "Histogram", "OperatorLog"]
