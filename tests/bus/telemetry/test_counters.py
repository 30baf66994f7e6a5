from __future__ import annotations

import pytest

from sealbus.bus.telemetry import Counters


def test_counts_by_label_whatever_the_order_of_the_labels() -> None:
    counters = Counters()
    counters.add("refused_total", 2, code="malformed", subject="a")
    counters.add("refused_total", subject="a", code="malformed")
    counters.add("refused_total", subject="b", code="malformed")
    assert counters.value("refused_total", code="malformed", subject="a") == 3
    assert counters.value("refused_total") == 4
    assert counters.value("refused_total", code="expired", subject="a") == 0
    assert counters.value("refused_total", code="malformed") == 0
    assert counters.value("never_total") == 0
    assert counters.value("never_total", code="malformed") == 0


def test_render_is_prometheus_text_with_escapes_and_in_order() -> None:
    counters = Counters()
    counters.describe({"b_total": 'two\nlines \\ "quoted"', "not_counted_total": "never shown"})
    counters.add("b_total", 3, subject='a"b\\c\nd')
    counters.add("b_total", 1, subject="Z")
    counters.add("a_total", 0)
    counters.gauge("open_now", lambda: 2.5)
    assert counters.render().startswith(
        "# HELP a_total \n"
        "# TYPE a_total counter\n"
        "a_total 0.0\n"
        '# HELP b_total two\\nlines \\\\ "quoted"\n'
        "# TYPE b_total counter\n"
        'b_total{subject="Z"} 1.0\n'
        'b_total{subject="a\\"b\\\\c\\nd"} 3.0\n'
        "# HELP open_now \n"
        "# TYPE open_now gauge\n"
        "open_now 2.5\n"
        "# HELP process_"
    )


def test_label_sets_are_bounded_and_nothing_is_forgotten() -> None:
    counters = Counters(label_sets=3)
    for number in range(100):
        counters.add("refused_total", code="malformed", subject=f"task.a.{number}")
    counters.add("refused_total", code="malformed", subject="task.a.0")
    assert counters.value("refused_total", code="malformed", subject="task.a.0") == 2
    assert counters.value("refused_total", code="other", subject="other") == 97
    assert counters.value("refused_total") == 101
    assert counters.render().count("refused_total{") == 4


def test_long_label_values_are_cut() -> None:
    counters = Counters()
    counters.add("refused_total", subject="x" * 5_000)
    counters.add("refused_total", subject="x" * 6_000)
    assert counters.render().count("x" * 257) == 0
    # Two series of one name and labels would be refused as a whole.
    assert counters.render().count("refused_total{") == 1
    assert counters.value("refused_total") == 2


@pytest.mark.parametrize("labels", [{}, {"code": "a", "subject": "b"}, {"subject": "b"}])
def test_a_counter_keeps_its_label_names(labels: dict[str, str]) -> None:
    counters = Counters()
    counters.add("refused_total", code="malformed")
    with pytest.raises(ValueError, match="has the labels"):
        counters.add("refused_total", 1, **labels)


def test_counters_only_count_up() -> None:
    with pytest.raises(ValueError, match="can only count up"):
        Counters().add("refused_total", -1)


@pytest.mark.parametrize("name", ["", "a b", "1a", 'a{b="c"}'])
def test_names_that_would_break_the_format_are_refused(name: str) -> None:
    counters = Counters()
    with pytest.raises(ValueError, match="not a valid name"):
        counters.add(name)
    with pytest.raises(ValueError, match="not a valid name"):
        counters.gauge(name, lambda: 0)
    with pytest.raises(ValueError, match="not a valid name"):
        counters.add("fine_total", 1, **{name: "x"})


def test_a_name_is_one_kind_of_metric() -> None:
    counters = Counters()
    counters.gauge("open_now", lambda: 1)
    counters.histogram("took_seconds")
    counters.add("refused_total")
    for name in ("open_now", "took_seconds"):
        with pytest.raises(ValueError, match="taken"):
            counters.add(name)
    for name in ("refused_total", "took_seconds"):
        with pytest.raises(ValueError, match="taken"):
            counters.gauge(name, lambda: 3)
    for name in ("refused_total", "open_now"):
        with pytest.raises(ValueError, match="taken"):
            counters.histogram(name)


def test_a_gauge_has_several_readers_of_which_the_newest_counts() -> None:
    counters = Counters()
    counters.gauges("left_seconds", ("who",), lambda: {("a",): 1.0, ("b",): 2.0})
    end = counters.gauges("left_seconds", ("who",), lambda: {("b",): 3.0})
    assert 'left_seconds{who="a"} 1.0\nleft_seconds{who="b"} 3.0\n' in counters.render()
    end()
    end()
    assert 'left_seconds{who="a"} 1.0\nleft_seconds{who="b"} 2.0\n' in counters.render()
    with pytest.raises(ValueError, match="has the labels"):
        counters.gauge("left_seconds", lambda: 1)


def test_a_histogram_counts_batches_by_bound() -> None:
    counters = Counters(label_sets=2)
    took = counters.histogram("took_seconds", ("action",))
    assert counters.histogram("took_seconds", ("action",)) is took
    took.observe(0.0005, "a.b")
    took.observe(0.02, "a.b", n=200)
    took.observe(61.0, "a.b")
    lines = counters.render().splitlines()
    for bound, count in (("0.0005", 1), ("0.01", 1), ("0.025", 201), ("60.0", 201), ("+Inf", 202)):
        assert f'took_seconds_bucket{{action="a.b",le="{bound}"}} {count}.0' in lines
    assert 'took_seconds_count{action="a.b"} 202.0' in lines
    [total] = [float(line.split()[-1]) for line in lines if line.startswith("took_seconds_sum")]
    assert total == pytest.approx(65.0005)
    for number in range(50):
        took.observe(0.1, f"made.up{number}")
    assert 'took_seconds_count{action="other"} 49.0' in counters.render().splitlines()
    with pytest.raises(ValueError, match="labels are"):
        took.observe(0.1)
    with pytest.raises(ValueError, match="has the labels"):
        counters.histogram("took_seconds", ("agent",))


def test_at_least_one_label_set_is_kept() -> None:
    with pytest.raises(ValueError, match="label_sets"):
        Counters(label_sets=0)
