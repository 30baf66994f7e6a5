"""The metrics of several agents of one process as one page."""

from __future__ import annotations

from sealbus.bus.telemetry import Counters, JoinedCounters


def test_each_agent_has_a_label_and_each_name_one_family() -> None:
    process, one, other = Counters(), Counters(), Counters()
    process.add("sealbus_x_total", 1, kind="a")
    one.add("sealbus_x_total", 2, kind="a")
    other.add("sealbus_x_total", 3, kind="b")
    other.gauge("sealbus_y", lambda: 4.0)
    other.histogram("sealbus_z_seconds").observe(0.3)
    parts = {"one": one, "other": other}
    joined = JoinedCounters(process, lambda: parts)
    page = joined.render()
    assert 'sealbus_x_total{kind="a"} 1.0' in page
    assert 'sealbus_x_total{agent="one",kind="a"} 2.0' in page
    assert 'sealbus_x_total{agent="other",kind="b"} 3.0' in page
    assert 'sealbus_y{agent="other"} 4.0' in page
    assert 'sealbus_z_seconds_bucket{agent="other",le="0.5"} 1.0' in page
    assert page.count("# TYPE sealbus_x_total counter") == 1
    # What is the whole process's is there once.
    assert page.count("process_resident_memory_bytes ") == 3
    del parts["one"]
    assert 'agent="one"' not in joined.render()
