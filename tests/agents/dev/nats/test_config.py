from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sealbus.agents.dev.nats.accounts import exports, imports
from sealbus.agents.dev.nats.config import BrokerUser, NatsConfig, Permissions
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.subjects import OwnSubject
from sealbus.envelopes.trust.spiffe_id import SpiffeId

USER = BrokerUser(
    spiffe_id=SpiffeId("spiffe://example.org/agent/a"), permissions=Permissions(publish=("task.>",), subscribe=("x",))
)
OPERATOR = BrokerUser(
    spiffe_id=SpiffeId("spiffe://example.org/agent/operator"),
    permissions=Permissions(publish=("$JS.API.>",), subscribe=("y",)),
    with_streams=True,
)
CONFIG = NatsConfig(
    port=4222,
    certificate=Path("/s/svid.pem"),
    key=Path("/s/svid.key"),
    bundle=Path("/s/bundle.pem"),
    store=Path("/s/store"),
    users=(USER, OPERATOR),
    max_store_bytes=1_000,
    own=(
        OwnSubject(subject="shop.made", kind=Kind.EVENT, owner=USER.spiffe_id, action="a.made"),
        OwnSubject(subject="shop.price", kind=Kind.CALL, owner=USER.spiffe_id, action="a.price"),
    ),
)


def test_the_configuration_is_mutual_tls_first_with_users_by_spiffe_id() -> None:
    assert json.loads(CONFIG.render()) == {
        "server_name": "sealbus-dev",
        "listen": "127.0.0.1:4222",
        "max_payload": 1_048_576,
        "max_connections": 1_024,
        "tls": {
            "cert_file": "/s/svid.pem",
            "key_file": "/s/svid.key",
            "ca_file": "/s/bundle.pem",
            "verify_and_map": True,
            "min_version": "1.3",
            "handshake_first": True,
            "timeout": 5,
        },
        "jetstream": {"store_dir": "/s/store", "max_file_store": 1_000, "sync_interval": "always"},
        "accounts": {
            "APP": {
                "jetstream": "enabled",
                "users": [
                    {
                        "user": "spiffe://example.org/agent/operator",
                        "permissions": {"publish": {"allow": ["$JS.API.>"]}, "subscribe": {"allow": ["y"]}},
                    }
                ],
                "exports": exports(),
            },
            "APP_AGENTS": {
                "users": [
                    {
                        "user": "spiffe://example.org/agent/a",
                        "permissions": {"publish": {"allow": ["task.>"]}, "subscribe": {"allow": ["x"]}},
                    }
                ],
                "imports": imports(CONFIG.own),
            },
            "SYS": {},
        },
        "system_account": "SYS",
    }


@pytest.mark.parametrize("port", [0, -2, 65_536])
def test_a_port_that_cannot_be_is_refused(port: int) -> None:
    with pytest.raises(ConfigurationError, match=f"NATS port {port}: must be from 1 to 65535"):
        replace(CONFIG, port=port)


def test_any_free_port_may_be_asked_for() -> None:
    assert b'"127.0.0.1:-1"' in replace(CONFIG, port=-1).render()


@pytest.mark.parametrize("path", ["relative", "/with\nnewline", "/with\x7fdelete"])
def test_a_path_that_the_server_would_misread_is_refused(path: str) -> None:
    for name in ("certificate", "key", "bundle", "store"):
        with pytest.raises(ConfigurationError, match="cannot be in the server's configuration"):
            replace(CONFIG, **{name: Path(path)})  # type: ignore[arg-type]


def test_no_one_is_two_users() -> None:
    with pytest.raises(ConfigurationError, match="two NATS users have the same SPIFFE ID"):
        replace(CONFIG, users=(USER, USER))


def test_only_who_asks_for_it_has_acknowledgements_before_the_disk() -> None:
    fast = json.loads(replace(CONFIG, sync=False).render())
    assert "sync_interval" not in fast["jetstream"]
