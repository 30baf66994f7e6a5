"""Where a notification may go: what each URL, each answer of a name server, and each redirect leads to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from a2a.types import AuthenticationInfo, TaskPushNotificationConfig
from a2a.utils.errors import InvalidParamsError
from support.egress import LOOPBACK, ScriptedApi, answered
from support.issuer import TRUSTS_NOBODY
from support.x509 import self_signed

from sealbus.agents.edge.a2a.webhook import Webhooks, check_config

PUBLIC = "93.184.215.14"


class Names:
    """A name server that gives the next answer each time, and the last one for good."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self._answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


def config(url: str, **said: Any) -> TaskPushNotificationConfig:
    return TaskPushNotificationConfig(**{"id": "c-1", "url": url, **said})


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://hook.example/",
        "ftp://hook.example/",
        "file:///etc/passwd",
        "https://user:password@hook.example/",
        "https://hook.example/#fragment",
        "https://hook.example/\r\nX-Other: 1",
        "https://" + "x" * 2_048,
        "https:///path",
        "//hook.example/",
    ],
)
def test_only_urls_of_https_can_be_told(url: str) -> None:
    with pytest.raises(InvalidParamsError, match="url"):
        check_config(config(url))


@pytest.mark.parametrize(
    "said",
    [
        {"id": ""},
        {"id": "a b"},
        {"id": "x" * 65},
        {"token": "a\r\nx: 1"},
        {"token": "x" * 1_025},
        {"authentication": AuthenticationInfo(scheme="Bearer")},
        {"authentication": AuthenticationInfo(scheme="Bearer x", credentials="y")},
        {"authentication": AuthenticationInfo(scheme="Bearer", credentials="y\r\nx: 1")},
    ],
)
def test_what_becomes_a_field_begins_no_other(said: dict[str, object]) -> None:
    with pytest.raises(InvalidParamsError):
        check_config(config("https://hook.example/", **said))


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"token": "x" * 1_024},
        {"authentication": AuthenticationInfo(scheme="Bearer", credentials="for the hook")},
    ],
)
def test_what_becomes_a_field_is_taken(said: dict[str, object]) -> None:
    url = "https://hook.example/"
    check_config(config(url + "x" * (2_048 - len(url)), **said))
    with pytest.raises(InvalidParamsError, match="url"):
        check_config(config(url + "x" * (2_049 - len(url)), **said))


@pytest.mark.parametrize(
    ("url", "port"),
    [
        ("https://localhost/", 443),
        ("http://localhost/", 80),
        ("HTTP://localhost/", 80),
        ("https://localhost:8443/", 8443),
    ],
)
async def test_a_url_without_a_port_has_that_of_its_scheme(url: str, port: int) -> None:
    asked: list[int] = []

    async def resolving(host: str, at: int) -> Sequence[str]:
        asked.append(at)
        return ["127.0.0.1"]

    await Webhooks(networks=LOOPBACK, tls=TRUSTS_NOBODY, resolving=resolving).check(url)
    assert asked == [port]


@pytest.mark.parametrize(
    "inside",
    [
        "127.0.0.1",
        "10.0.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "192.168.1.1",
        "0.0.0.1",
        "224.0.0.1",
        "::1",
        "fd00::1",
        "fe80::1%eth0",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
    ],
)
async def test_a_name_that_leads_inside_is_refused_and_not_told(inside: str) -> None:
    for addresses in ([inside], [PUBLIC, inside]):
        webhooks = Webhooks(tls=TRUSTS_NOBODY, resolving=Names(addresses))
        with pytest.raises(InvalidParamsError):
            await webhooks.check("https://hook.example/")
        assert not await webhooks.tell(config("https://hook.example/"), b"{}")
    if ":" not in inside:
        with pytest.raises(InvalidParamsError):
            await Webhooks(tls=TRUSTS_NOBODY).check(f"https://{inside}/")


async def test_a_name_that_means_another_address_later_reaches_nothing_inside() -> None:
    server, client = self_signed("hook.example")
    async with ScriptedApi(tls=server) as inside:
        port = inside.url.rpartition(":")[2].partition("/")[0]
        webhooks = Webhooks(tls=client, resolving=Names([PUBLIC], ["127.0.0.1"]))
        await webhooks.check(f"https://hook.example:{port}/")
        assert not await webhooks.tell(config(f"https://hook.example:{port}/"), b"{}")
        assert inside.connections == 0


async def test_the_name_is_resolved_once_and_its_server_verified_by_it() -> None:
    server, client = self_signed("hook.example")
    async with ScriptedApi(tls=server) as receiver:
        port = receiver.url.rpartition(":")[2].partition("/")[0]
        # A second question would lead elsewhere.
        names = Names(["127.0.0.1"], ["127.0.0.2"])
        webhooks = Webhooks(networks=LOOPBACK, tls=client, resolving=names)
        shown = AuthenticationInfo(scheme="Bearer", credentials="for-the-hook")
        said = config(f"https://hook.example:{port}/told?a=b", token="t-1", authentication=shown)
        assert await webhooks.tell(said, b'{"a": 1}')
        [asked] = receiver.asked
        assert names.asked == ["hook.example"]
        assert (asked.method, asked.target, asked.body) == ("POST", "/told?a=b", b'{"a": 1}')
        assert asked.headers["host"] == f"hook.example:{port}"
        assert asked.headers["authorization"] == "Bearer for-the-hook"
        assert asked.headers["x-a2a-notification-token"] == "t-1"
        # Of another name, it does not verify.
        other = Webhooks(networks=LOOPBACK, tls=client, resolving=Names(["127.0.0.1"]))
        assert not await other.tell(config(f"https://other.example:{port}/"), b"{}")
        assert len(receiver.asked) == 1


async def test_a_redirect_is_not_followed_and_a_failure_is_logged_without_the_url(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with ScriptedApi() as inside:
        async with ScriptedApi(lambda _: answered(307, b"", ("Location", inside.url))) as receiver:
            webhooks = Webhooks(networks=LOOPBACK, tls=TRUSTS_NOBODY)
            url = receiver.url.replace("localhost", "127.0.0.1")
            assert not await webhooks.tell(config(f"{url}/a-secret"), b"{}")
            assert (len(receiver.asked), inside.connections) == (1, 0)
        assert not await webhooks.tell(config(f"{url}/a-secret"), b"{}")
    told = [one.getMessage() for one in caplog.records if one.name.startswith("sealbus")]
    assert told == ["a webhook was not notified: it answered 307", "a webhook was not notified: ConnectError"]
    assert "a-secret" not in caplog.text
