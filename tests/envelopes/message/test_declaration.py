"""Declarations: marks in `ext`, and what is read back from them."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealbus.envelopes.errors import SealError
from sealbus.envelopes.message.declaration import NOTHING_DECLARED, Declaration, without_declaration
from sealbus.envelopes.message.fields import ExtValue, check_extensions

HASHES = st.one_of(st.just(b""), st.binary(min_size=32, max_size=32))
NAMES = st.text(st.characters(categories=["L", "N", "P"]), max_size=60)
VALUES: st.SearchStrategy[ExtValue] = st.one_of(st.booleans(), st.integers(-9, 9), NAMES, st.binary(max_size=33))
MARKS = st.sampled_from(["_mdl", "_prm", "_tls", "_one", "traceparent"])


@given(NAMES, HASHES, HASHES)
def test_what_is_declared_is_read_back(model: str, prompt: bytes, tools: bytes) -> None:
    declaration = Declaration(model=model, prompt=prompt, tools=tools)
    check_extensions(declaration.marks)
    assert Declaration.declared_in(declaration.marks) == declaration
    assert Declaration.declared_in({"_one": True, **declaration.marks, "a": 1}) == declaration


@given(st.dictionaries(MARKS, VALUES))
def test_only_marks_of_the_form_declare_anything(ext: dict[str, ExtValue]) -> None:
    declaration = Declaration.declared_in(ext)
    model, prompt, tools = ext.get("_mdl"), ext.get("_prm"), ext.get("_tls")
    assert declaration.model == (model if isinstance(model, str) else "")
    assert declaration.prompt == (prompt if isinstance(prompt, bytes) and len(prompt) == 32 else b"")
    assert declaration.tools == (tools if isinstance(tools, bytes) and len(tools) == 32 else b"")


@given(st.dictionaries(MARKS, VALUES))
def test_another_sender_declares_nothing_of_it(ext: dict[str, ExtValue]) -> None:
    rest = without_declaration(ext)
    assert Declaration.declared_in(rest) == NOTHING_DECLARED
    assert (rest or {}) == {name: ext[name] for name in ext if name not in ("_mdl", "_prm", "_tls")}


def test_nothing_is_left_of_marks_alone() -> None:
    assert without_declaration(None) is None
    assert without_declaration({"_mdl": "m"}) is None


def test_other_names_stay_as_they_are() -> None:
    ext: dict[str, ExtValue] = {"_MDL": "m", "_m": 1, "_mdl2": "m", "_prmx": True, "mdl": "m", "_tl": b""}
    assert without_declaration(ext) is ext
    assert Declaration.declared_in(ext) is NOTHING_DECLARED
    assert without_declaration({**ext, "_mdl": "m"}) == ext


def test_texts_and_bytes_are_hashed_as_they_are() -> None:
    declaration = Declaration.of(model="m", prompt="Sé útil", tools=b"{}\n")
    assert declaration.prompt == sha256("Sé útil".encode()).digest()
    assert declaration.tools == sha256(b"{}\n").digest()
    assert declaration.marks == {"_mdl": "m", "_prm": declaration.prompt, "_tls": declaration.tools}


def test_what_is_empty_is_not_declared() -> None:
    assert Declaration.of() == Declaration.of(prompt=b"", tools="") == NOTHING_DECLARED
    assert dict(NOTHING_DECLARED.marks) == {}


@pytest.mark.parametrize(
    ("model", "prompt", "tools"),
    [("m" * 257, b"", b""), ("a\nb", b"", b""), ("", b"1" * 31, b""), ("", b"", b"1" * 33), ("", b"1", b"")],
)
def test_values_that_no_mark_can_have_are_refused(model: str, prompt: bytes, tools: bytes) -> None:
    with pytest.raises(SealError):
        Declaration(model=model, prompt=prompt, tools=tools)


def test_half_a_character_is_refused() -> None:
    with pytest.raises(SealError, match="prompt has half a character"):
        Declaration.of(prompt="\ud800")
