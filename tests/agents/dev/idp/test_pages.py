from __future__ import annotations

import base64
import hashlib
import re

from hypothesis import given
from hypothesis import strategies as st

from sealbus.agents.dev.idp.login import code_page, content_security_policy, message_page, users_page
from sealbus.agents.dev.idp.registry import DemoUser

TAGS = re.compile(
    r"<(?!/?(?:html|head|meta|title|style|body|h1|p|b|form|input|button|small|code|label)\b|!doctype html>)"
)


@given(st.text(alphabet="<>\"'&/= abc;", max_size=40))
def test_no_text_becomes_a_tag_or_an_attribute(text: str) -> None:
    plain = users_page(action="/x", hidden={"k": ""}, client="", users=[DemoUser(identifier="dora")], device_code="c")
    filled = users_page(
        action="/x",
        hidden={"k": text},
        client=text,
        users=[DemoUser(identifier="dora", claims={"name": text})],
        device_code=text or "c",
    )
    for page in (filled, message_page("Title", text), message_page(text, "")):
        assert not TAGS.search(page)
    assert (filled.count("<"), filled.count('"')) == (plain.count("<"), plain.count('"'))


def test_there_is_no_script_and_nothing_from_elsewhere() -> None:
    for page in (users_page(action="/x", hidden={}, client="c", users=[]), code_page(action="/x", wrong=True)):
        assert "script" not in page
        assert "://" not in page
        assert not re.search(r"\s(style|on\w+|src|href)=", page)


def test_the_one_style_is_named_by_its_hash() -> None:
    found = re.search(r"<style>(.*)</style>", message_page("a", "b"))
    assert found is not None
    digest = base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}';" in content_security_policy()


def test_the_policy_of_a_page_is_strict() -> None:
    policy = content_security_policy("http://127.0.0.1:7777")
    for part in ("default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'"):
        assert part in policy
    assert "form-action 'self' http://127.0.0.1:7777;" in policy
    assert "unsafe" not in policy
