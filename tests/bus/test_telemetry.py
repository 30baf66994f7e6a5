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
    assert counters.render() == (
        "# TYPE a_total counter\n"
        "a_total 0\n"
        '# HELP b_total two\\nlines \\\\ "quoted"\n'
        "# TYPE b_total counter\n"
        'b_total{subject="Z"} 1\n'
        'b_total{subject="a\\"b\\\\c\\nd"} 3\n'
        "# TYPE open_now gauge\n"
        "open_now 2.5\n"
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
    assert len(counters.render()) < 400


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


def test_a_name_is_a_counter_or_a_gauge_never_both() -> None:
    counters = Counters()
    counters.gauge("open_now", lambda: 1)
    with pytest.raises(ValueError, match="taken"):
        counters.gauge("open_now", lambda: 2)
    with pytest.raises(ValueError, match="taken"):
        counters.add("open_now")
    counters.add("refused_total")
    with pytest.raises(ValueError, match="taken"):
        counters.gauge("refused_total", lambda: 3)


def test_at_least_one_label_set_is_kept() -> None:
    with pytest.raises(ValueError, match="label_sets"):
        Counters(label_sets=0)
