"""What docs/login.md and the guide show of logins and users of `sealbus dev` are settings, and mean what is said there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from sealbus.agents.dev.idp.registry import merged_users
from sealbus.agents.login.public_client import PublicClient
from sealbus.agents.runtime.settings.schema import ClientTable

DOCS = Path(__file__).parent.parent.parent / "docs"


def settings(name: str, table: str) -> str:
    (found,) = re.findall(rf"^```toml\n(\[{table}.*?)^```$", (DOCS / name).read_text(), re.MULTILINE | re.DOTALL)
    return str(found)


def test_the_settings_of_a_login_are_a_client() -> None:
    text = settings("login.md", "client")
    table = ClientTable.model_validate(tomllib.loads(text)["client"])
    assert PublicClient.of(table).parameters == {
        "scope": "openid offline_access",
        "resource": "https://api.example.org",
    }
    assert set(re.findall(r"^(?:# )?(\w+) =", text, re.MULTILINE)) == set(ClientTable.model_fields) - {"name"}
    assert f'redirect_uri = "{ClientTable().redirect_uri}"' in text


def test_a_user_of_the_guide_logs_in_as_it_says() -> None:
    users = tomllib.loads(settings("guide.md", r"dev\.users"))["dev"]["users"]
    (erin,) = (user for user in merged_users(users) if user.identifier == "erin")
    assert (erin.acr, erin.amr, erin.login_age) == ("urn:example:silver", ("pwd", "otp"), 7_200)
    assert dict(erin.claims) == {"department": "shop", "groups": ("staff", "night")}
