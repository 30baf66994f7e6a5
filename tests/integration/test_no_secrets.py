"""A whole run leaves no token, code, key or body where it does not belong: logs, output, errors, messages, records, files.

The run is the demonstration and what else is done with secrets (`support.secret_flows`): logins in a browser and on a
device, tokens in the right and in wrong places, token exchange, handlers that fail and say what they know, calls that
fail in every layer, commands in processes of their own. Every logger speaks at DEBUG, one connection hears every message
on the wire, and every exception that passes through a frame of sealbus is noted. Secrets are collected where they are
made, and searched for plain, url-quoted, in hex and in base64 at any alignment, also in what is encoded itself.

What is where by design, and therefore not a finding:

- Envelopes carry the JWT-SVID of their sender and signed user contexts. Without the private key, whose thumbprint is the
  JWT-SVID's one audience, neither is of use to who copies it: the demonstration's attackers try. They must not be in
  logs, output, errors, records' input documents and files.
- Bodies are in the messages themselves, as nats-server stores them, and in the samples of up to 1,024 bytes that are kept
  of refused messages. They must not be in logs, output, sealbus's own errors, the audit stream and other files. Of a body,
  records have the fields that the handler declares as facts, and nothing else.
- What a handler's exception says is in that exception. It must not be in anything that leaves the process.
- `sealbus token` prints a token: its standard output alone is left out.
- Three files hold keys, mode 0600: `support.whole_run.MEANT`.

The browser's own log of where it was sent (with which code) is a matter of the browser: its part is played by the tests.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from support.secret_search import Finding, Group, Kept, Place, Secret, search
from support.whole_run import MEANT, STORE, WholeRun, whole_run

pytestmark = [pytest.mark.nats, pytest.mark.workload_api, pytest.mark.slow]

KINDS = {
    "proof of possession",
    *("access token", "ID token", "authorization code", "pending login", "device code", "user code", "PKCE verifier"),
    *("script secret", "wrong script secret", "opaque token", "forged signature", "token in no form"),
    *("IdP key", "CA key", "JWT-SVID signing key", "X.509-SVID key", "signing key"),
    *("JWT-SVID", "signature of a user context", "body"),
    *(f"text of the {name}'s error" for name in ("call", "task", "loader", "absent item")),
}
LOGGERS = {
    *(
        "sealbus.agents.edge.http.application",
        "sealbus.agents.edge.foreign_logs",
        "sealbus.bus.work.executor.attempt",
        "sealbus.bus.gate.gate",
        "sealbus.bus.gate.authorizer",
    ),
    *("authlib.oauth2.rfc6749.grants.authorization_code", "authlib.oauth2.rfc8628.device_code"),
    *("asyncio", "httpx2", "httpcore2.http11", "uvicorn.error"),
}


@pytest.fixture(scope="module")
def run() -> WholeRun:
    return whole_run()


def assert_clean(run: WholeRun, secrets: Iterable[Secret], group: Group) -> None:
    """Fail, without showing any secret, if one of `secrets` is in a place of `group` where it must not be."""
    found: list[Finding] = search(secrets, [place for place in run.places if place.group is group])
    assert found == []


def test_the_run_was_whole(run: WholeRun) -> None:
    assert run.surprises == []
    assert run.dropped == 0, "messages on the wire were not heard"
    assert run.secrets.kinds() >= KINDS
    assert run.loggers >= LOGGERS
    assert {place.group for place in run.places} == set(Group)
    assert all(any(place.content for place in run.places if place.group is group) for group in Group)


@pytest.mark.parametrize("group", Group)
def test_nothing_is_where_it_must_not_be(run: WholeRun, group: Group) -> None:
    assert_clean(run, run.secrets, group)


@pytest.mark.parametrize("group", [group for group in Group if group is not Group.REFUSALS])
def test_a_planted_secret_is_found(run: WholeRun, group: Group) -> None:
    with pytest.raises(AssertionError, match="planted in"):
        assert_clean(run, [*run.secrets, run.planted[group]], group)


def test_a_body_is_found_where_it_is_allowed(run: WholeRun) -> None:
    """The samples of refused messages cannot be planted in; what is allowed to be there is found if it is asked for."""
    bodies = [Secret(one.name, Kept.SECRET, one.value) for one in run.secrets if one.kept is Kept.BODY]
    for group in (Group.REFUSALS, Group.MESSAGES):
        with pytest.raises(AssertionError, match="body"):
            assert_clean(run, bodies, group)


def test_files_that_are_meant_to_hold_secrets_do_and_are_ours_alone(run: WholeRun) -> None:
    assert set(run.meant) == set(MEANT)
    for name, content in run.meant.items():
        assert search(run.secrets, [Place(Group.FILES, name, content)]), f"{name} needs no exemption"
        assert run.modes[name] == 0o600
    stored = {name: mode for name, mode in run.modes.items() if name.startswith(STORE)}
    assert stored
    assert set(stored.values()) == {0o600}
    # What lets scripts in ends with the process that it belongs to.
    assert not {"idp.json", "dev.toml"} & run.left
