from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealbus.agents.dev.idp.requests import MalformedRequest, parameters


def test_parameters_are_read_once_each_and_empty_ones_are_none() -> None:
    assert parameters("client_id=a%20b&state=&scope=x+y") == {"client_id": "a b", "scope": "x y"}
    assert parameters("") == {}


@pytest.mark.parametrize(
    "text",
    [
        "state=a&state=a",
        "state=a&state=",
        "st%61te=a&state=b",
        "state=%22",
        "state=%0d%0aLocation:x",
        "state=%00",
        "state=%C3%A9",
        "state=%ff",
        "State=a",
        "a.b=c",
        "=a",
        "state=" + "x" * 2_049,
        "&".join(f"{'a' * number}=x" for number in range(1, 26)),
        "state=" + "x" * 9_000,
    ],
)
def test_what_no_honest_client_sends_is_refused(text: str) -> None:
    with pytest.raises(MalformedRequest) as caught:
        parameters(text)
    assert "x" * 40 not in str(caught.value)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = parameters(text)
    except MalformedRequest:
        return
    assert all(value.isascii() and value.isprintable() and '"' not in value for value in found.values())
