"""Narrowing of regorus' syntax tree."""

from __future__ import annotations

import pytest

from sealbus.policies.lint.parse import SourceText, as_kind, as_list, as_map
from sealbus.policies.lint.syntax import Place


def test_kinds_are_checked() -> None:
    assert as_map({"a": 1}) == {"a": 1}
    assert as_list([1]) == [1]
    assert as_kind({"Var": {}}) == ("Var", {})
    with pytest.raises(TypeError, match="list where an object"):
        as_map([])
    with pytest.raises(TypeError, match="dict where an array"):
        as_list({})


def test_places_and_texts() -> None:
    source = SourceText(path="a", text="ü\nx ☃y".encode())
    span = {"start": 8, "end": 9}
    assert source.written(span) == "y"
    assert source.place(span) == Place(line=2, column=4)
    assert source.place({"start": 0, "end": 0}) == Place(line=1, column=1)
    with pytest.raises(TypeError, match="without offsets"):
        source.place({"start": "1", "end": 2})
    assert str(source.unknown("Thing", span)).endswith(
        "a:2:4: Thing is syntax that was not compared between the engines [unknown]"
    )
