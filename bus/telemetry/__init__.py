"""Counters, gauges and histograms of a process, and one log line per notable message."""

from sealbus.bus.telemetry.counters import CONTENT_TYPE, Counters, Histogram
from sealbus.bus.telemetry.joined import JoinedCounters
from sealbus.bus.telemetry.operator_log import FIELDS, OperatorLog, shown

__all__ = ["CONTENT_TYPE", "FIELDS", "Counters", "Histogram", "JoinedCounters", "OperatorLog", "shown"]
