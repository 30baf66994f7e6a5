from __future__ import annotations

from pathlib import Path

import pytest

from sealbus.agents.dev.idp.registry import DEMO_USERS
from sealbus.agents.dev.settings_file import Declared, read_declared
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.trust.spiffe_id import SpiffeId


def written(folder: Path, text: str) -> Path:
    path = folder / "sealbus.toml"
    path.write_text(text)
    return path


def test_without_a_file_nothing_is_declared(tmp_path: Path) -> None:
    assert read_declared(tmp_path / "sealbus.toml") == Declared()
    assert Declared().names().id_of("pricing").value == "spiffe://example.org/agent/pricing"
    assert Declared().users == DEMO_USERS


def test_names_own_subjects_and_users_are_taken_over(tmp_path: Path) -> None:
    declared = read_declared(
        written(
            tmp_path,
            """
            trust_domain = "shop.example"
            nats = ["tls://production:4222"]
            [policy]
            engine = "sidecar"
            opa = "/run/opa.sock"
            [agents]
            template = "/ns/shop/{name}"
            billing = "spiffe://shop.example/ns/money/billing"
            [subjects."orders.created"]
            kind = "event"
            owner = "orders"
            [subjects."mail.send"]
            kind = "task"
            owner = "billing"
            action = "mail.post"
            [subjects."far.away"]
            kind = "task"
            owner = "spiffe://other.example/x"
            [dev.users.dora]
            [dev.users.erin]
            groups = ["a"]
            """,
        )
    )
    names = declared.names()
    assert declared.trust_domain == "shop.example"
    assert names.id_of("orders").value == "spiffe://shop.example/ns/shop/orders"
    assert names.id_of("billing").value == "spiffe://shop.example/ns/money/billing"
    # An owner without a name of ours is nobody that could run here.
    assert declared.agents == ("billing", "orders")
    assert [(one.subject, one.kind, one.action) for one in declared.own] == [
        ("orders.created", Kind.EVENT, "orders.created"),
        ("mail.send", Kind.TASK, "mail.post"),
        ("far.away", Kind.TASK, "far.away"),
    ]
    assert declared.own[1].owner == SpiffeId("spiffe://shop.example/ns/money/billing")
    assert [(user.identifier, dict(user.claims)) for user in declared.users[len(DEMO_USERS) :]] == [
        ("dora", {}),
        ("erin", {"groups": ("a",)}),
    ]


def test_a_file_need_not_say_what_only_a_deployment_has(tmp_path: Path) -> None:
    declared = read_declared(written(tmp_path, '[agents]\nbilling = "spiffe://example.org/billing"\n'))
    assert declared.trust_domain == "example.org"
    assert declared.agents == ("billing",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[agent]\nx = 1", "there is no setting agent"),
        ("[agents]\nx = 1", "agents.x: must be a SPIFFE ID"),
        ('[subjects."task.x.y"]\nkind = "task"\nowner = "x"', "task.x.y"),
        ('[subjects."a.b"]\nkind = "task"', "subjects"),
        ("[dev.users.'<b>']\nx = 1", "demo user '<b>'"),
        ("[dev.users.dora]\nsub = 'root'", "'sub' cannot be a claim"),
        ("[dev.users.dora.deep]\nx = 1", "claim deep must be"),
        ("[dev]\nusers = 3", "dev.users is a table"),
        ("[dev.users]\ndora = 3", "dev.users.dora is a table"),
        ("nonsense", "not TOML"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        read_declared(written(tmp_path, text))
    assert "\n" not in caught.value.detail
