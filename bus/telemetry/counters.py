"""Counters, gauges and histograms of a process, shown as Prometheus text.

Labels may hold texts that peers send (a subject, a SPIFFE ID), so the number of label sets per name is bounded; further sets
are counted under `other`. Only the event loop's thread may use this: there are no locks. An observation costs some 300 ns,
for a whole batch as for one message. prometheus_client is imported when the text is first rendered.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Metric
    from prometheus_client.registry import Collector

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""Media type of `Counters.render` (Prometheus text exposition format 0.0.4)."""

OTHER: Final = "other"
"""The value of all labels of sets beyond the bound."""

BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of histograms, in seconds: from a decision of the engine to a handler that takes a minute."""

_NAME: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_LABEL_BYTES: Final = 256
"""Longest label value that is kept, in characters: the bound of a subject (SPEC.md section 1)."""

_Key = tuple[str, ...]
_Reader = Callable[[], Mapping[_Key, float]]


class Histogram:
    """Durations by label values, which come in the order in which the labels were declared."""

    def __init__(self, labels: _Key, most: int) -> None:
        self.labels: Final = labels
        self._most = most
        self._cells: dict[_Key, list[float]] = {}

    def observe(self, seconds: float, *values: str, n: int = 1) -> None:
        """Count `n` observations of `seconds`: one for each message of a batch that waited for its end."""
        cell = self._cells.get(values)
        if cell is None:
            cell = self._cell(values)
        cell[bisect_left(BUCKETS, seconds)] += n
        cell[-1] += seconds * n

    def read(self) -> Iterator[tuple[_Key, list[tuple[str, float]], float]]:
        """Yield label values, cumulative counts by upper bound, and sum."""
        for key, cell in sorted(self._cells.items()):
            counts, total = [], 0.0
            for bound, count in zip((*map(str, BUCKETS), "+Inf"), cell, strict=False):
                total += count
                counts.append((bound, total))
            yield key, counts, cell[-1]

    def _cell(self, values: _Key) -> list[float]:
        if len(values) != len(self.labels):
            raise ValueError(f"the labels are {self.labels}")
        key = _bounded(values, self._cells, self._most)
        return self._cells.setdefault(key, [0.0] * (len(BUCKETS) + 2))


class Counters:
    """Counters, gauges and histograms by name and labels. The first use of a name fixes its labels.

    `label_sets` bounds the distinct label sets per name. `add`, `gauges` and `histogram` raise `ValueError` for other labels.
    """

    def __init__(self, *, label_sets: int = 512) -> None:
        if label_sets < 1:
            raise ValueError("label_sets must be at least 1")
        self._label_sets = label_sets
        self._labels: dict[str, _Key] = {}
        self._values: dict[str, dict[_Key, int]] = {}
        self._gauges: dict[str, dict[int, _Reader]] = {}
        self._histograms: dict[str, Histogram] = {}
        self._help: dict[str, str] = {}
        self._registered = 0
        self._registry: CollectorRegistry | None = None

    def describe(self, texts: Mapping[str, str]) -> None:
        """Set the help lines of names for `render`. Names need not have been used yet."""
        self._help.update(texts)

    def add(self, name: str, n: int = 1, /, **labels: str) -> None:
        """Add `n`, 0 or more, to the counter `name` under `labels`; adding 0 shows it before its first event."""
        if n < 0:
            raise ValueError(f"{name} can only count up")
        values = self._values.get(name)
        if values is None:
            self._declare(name, tuple(sorted(labels)))
            values = self._values[name] = {}
        names = self._labels[name]
        if len(labels) != len(names):
            raise ValueError(f"{name} has the labels {names}")
        try:
            key = tuple([labels[label] for label in names])
        except KeyError as error:
            raise ValueError(f"{name} has the labels {names}") from error
        if key not in values:
            key = _bounded(key, values, self._label_sets)
        values[key] = values.get(key, 0) + n

    def gauge(self, name: str, read: Callable[[], float]) -> Callable[[], None]:
        """Show what `read` returns at each `render` under `name`; return a function that ends this. See `gauges`."""
        return self.gauges(name, (), lambda: {(): read()})

    def gauges(self, name: str, labels: _Key, read: _Reader) -> Callable[[], None]:
        """Show what `read` returns by label values at each `render` under `name`; return a function that ends this.

        `read` must neither block nor raise. A name may have several readers: for equal label values the newest one counts.
        """
        if name not in self._gauges:
            self._declare(name, labels)
            self._gauges[name] = {}
        elif self._labels[name] != labels:
            raise ValueError(f"{name} has the labels {self._labels[name]}")
        self._registered += 1
        number = self._registered
        self._gauges[name][number] = read

        def end() -> None:
            self._gauges[name].pop(number, None)

        return end

    def histogram(self, name: str, labels: _Key = ()) -> Histogram:
        """Return the histogram `name`; keep it where durations are observed."""
        histogram = self._histograms.get(name)
        if histogram is None:
            self._declare(name, labels)
            histogram = self._histograms[name] = Histogram(labels, self._label_sets)
        elif histogram.labels != labels:
            raise ValueError(f"{name} has the labels {histogram.labels}")
        return histogram

    def value(self, name: str, /, **labels: str) -> int:
        """Return the count of `name` under exactly `labels`, or the sum of all label sets without `labels`; 0 if none."""
        values = self._values.get(name, {})
        if not labels:
            return sum(values.values())
        if set(labels) != set(self._labels.get(name, ())):
            return 0
        return values.get(tuple([labels[label] for label in self._labels[name]]), 0)

    def render(self) -> str:
        """Return all metrics as Prometheus text, with those that prometheus_client has of the process."""
        from prometheus_client import generate_latest

        return generate_latest(self._collected()).decode()

    def families(self) -> list[Metric]:
        """Return the metrics of `render` as objects of prometheus_client."""
        return list(self._collected().collect())

    def _collected(self) -> CollectorRegistry:
        from prometheus_client import CollectorRegistry, ProcessCollector

        if self._registry is None:
            self._registry = CollectorRegistry(auto_describe=False)
            self._registry.register(cast("Collector", _Collector(self._collect)))
            ProcessCollector(registry=self._registry)
        return self._registry

    def _collect(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        for name, labels in sorted(self._labels.items()):
            text = self._help.get(name, "")
            if name in self._values:
                counter = CounterMetricFamily(name, text, labels=labels)
                for key, count in sorted(self._values[name].items()):
                    counter.add_metric(key, count)
                yield counter
            elif name in self._gauges:
                gauge = GaugeMetricFamily(name, text, labels=labels)
                shown: dict[_Key, float] = {}
                for read in self._gauges[name].values():
                    shown |= read()
                for key, number in sorted(shown.items()):
                    gauge.add_metric(key, number)
                yield gauge
            else:
                histogram = HistogramMetricFamily(name, text, labels=labels)
                for key, counts, total in self._histograms[name].read():
                    histogram.add_metric(key, counts, total)
                yield histogram

    def _declare(self, name: str, labels: _Key) -> None:
        if name in self._labels or not all(_NAME.fullmatch(text) for text in (name, *labels)):
            raise ValueError(f"{name!r} is not a valid name, or taken")
        self._labels[name] = labels


class _Collector:
    """The collector for prometheus_client, which would call `Counters.describe` for another purpose."""

    def __init__(self, collect: Callable[[], Iterator[Metric]]) -> None:
        self.collect = collect


def _bounded(key: _Key, keys: Mapping[_Key, object], most: int) -> _Key:
    """Return the label values under which a new set is kept: cut to length, or `other` if there are enough sets."""
    cut = tuple([value[:_LABEL_BYTES] for value in key])
    return cut if cut in keys or len(keys) < most else (OTHER,) * len(key)
