"""Parts of a document taken out by JSON pointer."""

from __future__ import annotations

import json

import pytest
from support.policies import document

from sealbus.bus.audit.redaction import Pointer, redact
from sealbus.envelopes.errors import ConfigurationError
from sealbus.policies.decision.documents import checked_document

DOCUMENT = b'{"":0,"a":{"b~/c":"secret","list":["x",["y"],"z"],"n":null},"\xc3\xbc":1}'


def without(*pointers: str) -> tuple[object, tuple[str, ...]]:
    redacted, found = redact(DOCUMENT, [Pointer(one) for one in pointers])
    return json.loads(redacted), found


@pytest.mark.parametrize(
    ("pointer", "left"),
    [
        ("/a", {"": 0, "a": None, "ü": 1}),
        ("/", {"": None, "a": {"b~/c": "secret", "list": ["x", ["y"], "z"], "n": None}, "ü": 1}),
        ("/ü", {"": 0, "a": {"b~/c": "secret", "list": ["x", ["y"], "z"], "n": None}, "ü": None}),
        ("/a/b~0~1c", {"": 0, "a": {"b~/c": None, "list": ["x", ["y"], "z"], "n": None}, "ü": 1}),
        ("/a/list/0", {"": 0, "a": {"b~/c": "secret", "list": [None, ["y"], "z"], "n": None}, "ü": 1}),
        ("/a/list/1/0", {"": 0, "a": {"b~/c": "secret", "list": ["x", [None], "z"], "n": None}, "ü": 1}),
    ],
)
def test_what_is_pointed_to_is_null_then(pointer: str, left: object) -> None:
    assert without(pointer) == (left, (pointer,))


@pytest.mark.parametrize(
    "pointer",
    [
        "/b",
        "/a/x/y",
        "/a/list/3",
        "/a/list/-",
        "/a/list/01",
        "/a/list/x",
        "/a/list/-1",
        "/ü/0",
        "/a/n",
        "/a/n/x",
        "/a/b~01c",
    ],
)
def test_what_is_not_there_is_not_named(pointer: str) -> None:
    assert redact(DOCUMENT, [Pointer(pointer)]) == (DOCUMENT, ())


def test_an_escaped_tilde_is_no_slash() -> None:
    assert redact(b'{"m~1n":1,"m/n":2}', [Pointer("/m~01n")]) == (b'{"m~1n":null,"m/n":2}', ("/m~01n",))


def test_only_what_was_found_is_named_in_the_order_given() -> None:
    assert without("/ü", "/nothing", "/a")[1] == ("/ü", "/a")
    # What stands inside of something that is gone already is not there.
    assert without("/a", "/a/list")[1] == ("/a",)
    assert without("/a/list", "/a")[1] == ("/a/list", "/a")


@pytest.mark.parametrize("text", ["", "a", "a/b", "/~", "/~2", "/a~", "/\n", "/" + "a" * 256, "#/a"])
def test_what_is_no_pointer_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is not a JSON pointer"):
        Pointer(text)


def test_a_redacted_input_document_is_one_still() -> None:
    found, pointers = redact(document(), [Pointer("/context/user/id"), Pointer("/resource/properties/owner")])
    checked_document(found)
    assert json.loads(found)["resource"] == {"type": "item", "id": "42", "properties": {"owner": None}}
    assert pointers == ("/context/user/id", "/resource/properties/owner")
    assert list(json.loads(found)) == list(json.loads(document()))
    assert repr(Pointer("/a")) == "Pointer('/a')"
