"""The client that an agent has for an API: an httpx2 client whose requests are calls."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import httpx2
import pytest
from pydantic import ValidationError

from sealbus.agents.sdk.http import ApiAnswer, ApiRequest, api_action, api_client
from sealbus.envelopes.errors import SealError


class Exit:
    """Takes requests in place of the exit."""

    def __init__(self, *answers: ApiAnswer) -> None:
        self.asked: list[ApiRequest] = []
        self.answers = list(answers)

    async def send(self, request: ApiRequest) -> ApiAnswer:
        self.asked.append(request)
        return self.answers.pop(0) if self.answers else ApiAnswer(status=200)


async def test_a_request_and_its_answer() -> None:
    exit_ = Exit(ApiAnswer(status=201, headers=(("content-type", "application/json"), ("link", "a")), body=b'{"n": 1}'))
    found = await api_client(exit_.send).post(
        "/notes/a%20b", params={"q": "1 2"}, json={"text": "é"}, headers={"X-A": "b"}
    )
    assert (found.status_code, found.json(), found.headers["link"]) == (201, {"n": 1}, "a")
    [asked] = exit_.asked
    assert (asked.method, asked.path, asked.query) == ("POST", "/notes/a%20b", "q=1+2")
    assert json.loads(asked.body) == {"text": "é"}
    assert dict(asked.headers) == {"accept": "*/*", "content-type": "application/json", "x-a": "b"}


async def test_a_stream_is_sent_whole() -> None:
    exit_ = Exit()

    async def parts() -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"

    await api_client(exit_.send).put("/", content=parts())
    assert exit_.asked[0].body == b"onetwo"


async def test_a_redirect_is_followed_only_if_that_is_asked_for() -> None:
    moved = ApiAnswer(status=302, headers=(("location", "/there"),))
    exit_ = Exit(moved, moved)
    http = api_client(exit_.send)
    assert (await http.get("/here")).status_code == 302
    assert (await http.get("/here", follow_redirects=True)).status_code == 200
    assert [one.path for one in exit_.asked] == ["/here", "/here", "/there"]


@pytest.mark.parametrize("url", ["https://evil.example/", "http://api.invalid/", "https://api.invalid.evil.example/"])
async def test_it_reaches_no_other_host(url: str) -> None:
    exit_ = Exit()
    with pytest.raises(SealError, match="one API only"):
        await api_client(exit_.send).get(url)
    moved = Exit(ApiAnswer(status=302, headers=(("location", url),)))
    with pytest.raises(SealError, match="one API only"):
        await api_client(moved.send).get("/", follow_redirects=True)
    assert exit_.asked == []
    assert len(moved.asked) == 1


async def test_what_the_call_raises_comes_out_as_it_is() -> None:
    async def send(request: ApiRequest) -> ApiAnswer:
        raise LookupError

    with pytest.raises(LookupError):
        await api_client(send).get("/")


async def test_bytes_survive_json() -> None:
    every = bytes(range(256))
    said = ApiRequest(method="PUT", path="/", body=every)
    assert ApiRequest.model_validate_json(said.model_dump_json()) == said
    answer = ApiAnswer(status=200, body=every)
    assert ApiAnswer.model_validate_json(answer.model_dump_json()).body == every
    found = await api_client(Exit(answer).send).get("/")
    assert (found.content, isinstance(found, httpx2.Response)) == (every, True)


def test_neither_shows_its_body() -> None:
    assert "secret" not in repr(ApiRequest(method="PUT", path="/", body=b"secret"))
    assert "secret" not in repr(ApiAnswer(status=200, body=b"secret"))


def test_what_is_not_known_is_refused() -> None:
    with pytest.raises(ValidationError):
        ApiRequest.model_validate({"method": "GET", "path": "/", "host": "evil.example"})


@pytest.mark.parametrize(
    ("name", "action"), [("crm", "exit.crm"), ("exit.crm", "exit.crm"), ("exit-2.crm", "exit-2.crm")]
)
def test_the_action_of_an_api(name: str, action: str) -> None:
    assert api_action(name) == action


@pytest.mark.parametrize("name", ["", "a b", "a.b.c", ".", "exit.", "*", "crm.>"])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(SealError):
        api_action(name)
