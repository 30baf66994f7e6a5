"""For whom `pub` and `call` act; the whole way over the edge is in tests/integration/test_dev_idp.py."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from support.scripted_provider import SECRETS
from support.settings import SMALLEST, load

from sealbus.agents.cli.bus import call, pub
from sealbus.agents.cli.bus.on_behalf import OnBehalf
from sealbus.agents.login.kept_login import LoginRequired, keep_login
from sealbus.agents.login.login_file import LoginFile
from sealbus.agents.login.public_client import PublicClient
from sealbus.agents.login.token_answer import Tokens
from sealbus.bus.clocks import wall_clock
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.limits import SECOND

NOBODY = OnBehalf(me=False, user=None, session="")
ME = OnBehalf(me=True, user=None, session="")


@pytest.mark.parametrize(
    ("command", "words"), [(pub.command, ["task.a.b", "{}"]), (call.command, ["a.b", "{}"])], ids=["pub", "call"]
)
@pytest.mark.parametrize(
    ("options", "told"),
    [(["--me", "--user", "alice"], "give one of them"), (["--me", "--session", "s"], "--session goes with --user")],
)
def test_what_does_not_go_together_is_told(
    command: click.Command, words: list[str], options: list[str], told: str
) -> None:
    result = CliRunner().invoke(command, [*words, *options])
    assert result.exit_code == 2
    assert told in result.output


async def test_without_an_option_a_command_acts_for_nobody(tmp_path: Path) -> None:
    assert await NOBODY.token(load(tmp_path)) is None


async def test_me_is_who_logged_in(tmp_path: Path) -> None:
    settings = load(tmp_path, SMALLEST + '[client]\nissuer = "https://idp.example"\nlogins = "logins.json"\n')
    with pytest.raises(LoginRequired, match=r"not logged in at https://idp\.example: run `sealbus login`"):
        await ME.token(settings)
    tokens = Tokens(access_token=SECRETS["access"], refresh_token=None, scope="", expires=wall_clock() + 600 * SECOND)
    client = PublicClient(issuer="https://idp.example", client_id="cli")
    await keep_login(LoginFile(tmp_path / "logins.json"), client, tokens)
    assert await ME.token(settings) == SECRETS["access"]


async def test_a_user_of_sealbus_dev_is_one_only_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="elsewhere log in by `sealbus login` and give --me"):
        await OnBehalf(me=False, user="alice", session="").token(load(tmp_path))
