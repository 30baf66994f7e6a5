"""What is known of a value: joined, narrowed, and what it may hold."""

from __future__ import annotations

from sealbus.policies.types.value import (
    ANY,
    BOOLEAN,
    INSTANT,
    JSON,
    NEVER,
    NULL,
    NUMBER,
    TEXT,
    UNBOUNDED,
    Type,
    array_of,
    join,
    join_all,
    narrowed,
    number,
    object_of,
    record,
    row_of,
    set_of,
)


def test_nothing_adds_nothing() -> None:
    assert join_all([]) == NEVER
    assert join(TEXT, NEVER) == join(NEVER, TEXT) == join(TEXT, TEXT) == TEXT


def test_a_number_is_bounded_by_the_greater_bound() -> None:
    assert join(number(3), number(7)) == number(7)
    assert number(UNBOUNDED * 4).most == UNBOUNDED


def test_an_instant_is_one_only_if_both_are() -> None:
    assert join(INSTANT, TEXT).instant is False
    assert join(INSTANT, INSTANT).instant is True


def test_arrays_have_one_of_the_lengths_that_are_known() -> None:
    assert join(row_of(TEXT, TEXT), row_of(NUMBER, NUMBER)).lengths == {2}
    assert join(row_of(TEXT, TEXT), row_of(TEXT)).lengths == {1, 2}
    assert join(row_of(TEXT, TEXT), array_of(TEXT)).lengths == frozenset()
    assert join(row_of(TEXT, TEXT), TEXT).lengths == {2}
    assert join(TEXT, NUMBER).lengths == frozenset()


def test_arrays_have_one_of_the_rows_that_are_known() -> None:
    assert join(row_of(TEXT, NUMBER), row_of(NUMBER)).rows == {(TEXT, NUMBER), (NUMBER,)}
    assert join(row_of(TEXT), array_of(TEXT)).rows == {(TEXT,), TEXT}
    assert join(row_of(TEXT), JSON).rows == frozenset()
    assert join(row_of(TEXT), NULL).rows == {(TEXT,)}
    assert join(TEXT, NUMBER).rows == frozenset()


def test_rows_of_very_many_types_are_not_known_and_their_lengths_are() -> None:
    assert row_of(*[TEXT] * 1_022).rows
    assert not row_of(*[TEXT] * 1_023).rows
    assert row_of(*[TEXT] * 1_023).lengths == {1_023}
    assert not join(row_of(*[TEXT] * 1_022), row_of(TEXT)).rows
    nested = TEXT
    for _ in range(64):
        nested = row_of(nested, nested)
    assert not nested.rows


def test_fields_are_joined_one_by_one() -> None:
    one = join(record({"a": TEXT, "b": TEXT}), record({"a": NUMBER}))
    assert dict(one.fields) == {"a": join(TEXT, NUMBER), "b": TEXT}
    assert join(record({"a": TEXT}), TEXT).fields == record({"a": TEXT}).fields


def test_fields_and_other_objects_become_values() -> None:
    one = join(record({"a": TEXT}), object_of(NUMBER, BOOLEAN))
    assert one.fields == ()
    assert one.items == join(TEXT, BOOLEAN)
    assert one.keys == join(NUMBER, TEXT)
    assert join(object_of(NUMBER, TEXT), array_of(TEXT)).keys == NUMBER


def test_the_widest_stays() -> None:
    assert join(JSON, TEXT).open == "json"
    assert join(ANY, JSON).open == join(JSON, ANY).open == "any"


def test_what_is_known_as_json_only_holds_no_more_than_that() -> None:
    large = number(NUMBER.most + 1)
    for more in (record({"a": large}), array_of(set_of(TEXT)), set_of(large), object_of(large, TEXT), array_of(ANY)):
        assert not more.holds_json
        assert join(JSON, more).open == join(more, JSON).open == "any"
    for same in (record({"a": NUMBER}), array_of(JSON), set_of(TEXT), object_of(TEXT, BOOLEAN), large, JSON):
        assert same.holds_json
        assert join(JSON, same).open == join(same, JSON).open == "json"
    assert not ANY.holds_json


def test_what_a_type_of_very_many_types_holds_is_unknown() -> None:
    fields = {f"a{number}": TEXT for number in range(16_383)}
    assert record(fields) == Type(names=frozenset({"object"}), fields=tuple(sorted(fields.items())))
    assert record({**fields, "b": TEXT}) == Type(names=frozenset({"object"}), open="any")
    assert array_of(record(fields)) == Type(names=frozenset({"array"}), open="any")
    assert object_of(record(fields), TEXT) == Type(names=frozenset({"object"}), open="any")


def test_what_is_narrowed_is_no_more_than_it_was() -> None:
    assert narrowed(join(TEXT, NULL), frozenset({"text", "number"})) == TEXT
    assert narrowed(JSON, frozenset({"set"})).names == frozenset()


def test_what_a_value_may_hold() -> None:
    assert TEXT.scalar
    assert not TEXT.may_hold("object")
    assert array_of(set_of(TEXT)).may_hold("set")
    assert not array_of(TEXT).may_hold("set")
    assert record({"a": array_of(BOOLEAN)}).may_hold("boolean")
    assert object_of(set_of(TEXT), TEXT).may_hold("set")
    assert JSON.may_hold("object")
    assert not array_of(JSON).may_hold("set")
    assert array_of(ANY).may_hold("set")
    assert join(Type(names=frozenset({"array"}), data=frozenset({("a",)})), array_of(set_of(TEXT))).may_hold("set")
