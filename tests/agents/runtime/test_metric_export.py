"""Metrics by OTLP: the same names and numbers as `/metrics` has, where and when the environment says."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest
from support.otlp import received_spans
from support.ports import held_port

from sealbus.agents.runtime.metric_export import exporting_metrics, metrics_wanted
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import ConfigurationError


def counted() -> Counters:
    counters = Counters()
    counters.add("sealbus_decisions_total", 3, decision="allow")
    counters.add("sealbus_decisions_total", 1, decision="deny")
    counters.gauge("sealbus_unsettled_messages", lambda: 7.0)
    handled = counters.histogram("sealbus_handler_seconds", ("action",))
    for seconds in (0.0004, 0.3, 0.3, 99.0):
        handled.observe(seconds, "shop.read")
    handled.observe(0.02, "shop.update")
    counters.histogram("sealbus_gate_seconds", ())
    return counters


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}, False),
        ({"OTEL_METRICS_EXPORTER": "otlp"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_METRICS_EXPORTER": "otlp"}, True),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://127.0.0.1:9"}, True),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"}, False),
    ],
)
async def test_it_is_done_where_the_environment_asks_for_it(
    environment: dict[str, str], wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert metrics_wanted() is wanted
    if not wanted:
        async with exporting_metrics("shop", Counters()):
            assert [one.get_name() for one in asyncio.all_tasks() if one.get_name() == "metric-export"] == []


async def test_all_of_it_is_there_at_the_end_under_its_own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    counters = counted()
    with received_spans() as sink:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", f"{sink.endpoint}/v1/metrics")
        async with exporting_metrics("shop", counters):
            counters.add("sealbus_decisions_total", 1, decision="allow")
        found = sink.metrics["shop"]
    decided = found["sealbus_decisions_total"].sum
    assert (decided.is_monotonic, decided.aggregation_temporality) == (True, 2)
    assert {one.attributes[0].value.string_value: one.as_double for one in decided.data_points} == {
        "allow": 4,
        "deny": 1,
    }
    assert found["sealbus_decisions_total"].description
    assert [one.as_double for one in found["sealbus_unsettled_messages"].gauge.data_points] == [7.0]
    read, update = found["sealbus_handler_seconds"].histogram.data_points
    assert [one.value.string_value for one in read.attributes] == ["shop.read"]
    assert read.sum == pytest.approx(99.6004)
    assert (read.count, read.HasField("max")) == (4, False)
    assert len(read.bucket_counts) == len(read.explicit_bounds) + 1 == 17
    assert (read.bucket_counts[0], read.bucket_counts[-1], sum(read.bucket_counts)) == (1, 1, 4)
    assert read.bucket_counts[list(read.explicit_bounds).index(0.5)] == 2
    assert (update.count, sum(update.bucket_counts)) == (1, 1)
    assert 0 < read.start_time_unix_nano <= read.time_unix_nano
    shown = {line.split("{")[0].split()[0] for line in counters.render().splitlines() if not line.startswith("#")}
    assert {name for name in shown if not name.endswith(("_bucket", "_sum", "_count"))} <= set(found)
    assert "process_resident_memory_bytes" in found


async def test_a_sink_that_is_away_holds_up_nothing_and_gets_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", f"http://127.0.0.1:{held_port()}/v1/metrics")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "1")
    async with asyncio.timeout(60), exporting_metrics("shop", counted()):
        pass


@pytest.mark.parametrize("interval", ["0", "-1", "x", "1.5"])
async def test_an_interval_that_is_none_is_refused(interval: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", interval)
    with pytest.raises(ConfigurationError, match="OTEL_METRIC_EXPORT_INTERVAL"):
        async with exporting_metrics("shop", Counters()):
            pass


async def test_without_the_packages_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.metric_exporter", None)
    with pytest.raises(ConfigurationError, match=r"sealbus\[otel\]"):
        async with exporting_metrics("shop", Counters()):
            pass


@pytest.mark.nats
@pytest.mark.slow
async def test_a_process_sends_its_own_at_intervals(tmp_path: Path) -> None:
    from sealbus.agents.dev.environment import DevOptions, open_environment

    options = DevOptions(folder=tmp_path, agents=("control",), port=0)
    with received_spans() as sink:
        async with open_environment(options) as dev:
            process = await asyncio.create_subprocess_exec(
                str(Path(sys.executable).parent / "sealbus"), "control", "run", "--roles", "streams",
                "--config", str(dev.settings_file), stderr=asyncio.subprocess.DEVNULL,
                env=os.environ | {
                    "OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint, "OTEL_METRICS_EXPORTER": "otlp",
                    "OTEL_METRIC_EXPORT_INTERVAL": "200",
                },
            )  # fmt: skip
            try:
                found = await asyncio.to_thread(
                    sink.wait_for_metrics, "streams", lambda metrics: "sealbus_stream_bytes" in metrics
                )
            finally:
                process.terminate()
                await process.wait()
    names = {
        one.value.string_value for point in found["sealbus_stream_bytes"].gauge.data_points for one in point.attributes
    }
    assert "AUDIT" in names
