"""A settings file in a folder of the test, and what it gives."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from sealbus.agents.runtime.settings.settings import Settings, load_settings
from sealbus.agents.runtime.settings.source import Flag

Model = TypeVar("Model", bound=BaseModel)

__all__ = ["FULL", "SMALLEST", "load", "origin", "smallest_environment"]

SMALLEST = """
trust_domain = "example.org"
nats = ["tls://nats:4222"]
[policy]
engine = "sidecar"
"""
"""The least that a settings file must say."""

FULL = """
development = true
trust_domain = "example.org"
nats = ["tls://a:4222", "tls://b:4222"]
nats_ids = ["spiffe://example.org/nats/a", "spiffe://example.org/nats/b"]
workload_api = "unix:///run/agent.sock"
[policy]
engine = "embedded"
bundle = "policy/bundle.tar.gz"
cache = "cache"
keys = ["policy/platform.pem", "/etc/old.pem"]
serve = "0.0.0.0:8445"
serve_key = "composer.pem"
denials = "entry"
opa = "/run/opa.sock"
opa_ids = ["spiffe://example.org/opa/a", "spiffe://example.org/opa/b"]
deadline = 0.5
[agents]
template = "/ns/shop/sa/{name}"
pricing = "spiffe://example.org/ns/money/sa/pricing"
[context]
minters = ["spiffe://example.org/edge"]
start = 1_800
life = 7_200
[chain]
life = 14_400
after = 600
[trust]
notaries = ["spiffe://example.org/agent/notary"]
[streams]
replicas = 3
replicated_consumers = true
[streams.mirror]
domain = "home"
stream = "AUDIT-2026-12"
deliver = "mirror-west"
[streams.max_bytes]
tasks = "1GiB"
audit = 5_000_000
refusals = "64 MiB"
people = "8 MiB"
[subjects."orders.created"]
kind = "event"
owner = "orders"
[subjects."mail.send"]
kind = "task"
owner = "spiffe://example.org/mail"
action = "mail.post"
[audit]
within = 3
denials = 300
bodies = ["task.orders.>"]
spool = "spool"
spool_max = "16 MiB"
[audit.redact]
"task.payroll.>" = ["/action/properties/salary"]
[identity]
within = 90
command_within = 2.5
[limits]
pending_calls = 10
replay_entries = 20
[health]
address = ":9464"
[worker]
concurrency = 4
batch = 8
ack_wait = 60
max_ack_pending = 16
drain = 5.5
[edge]
address = "0.0.0.0:8443"
resource = "https://api.example.org"
certificate = "edge.pem"
key = "/etc/edge.key"
plaintext = true
connections = 2_000
connections_of_address = 200
event_streams = 1_000
token_service = ":8444"
pseudonym_key = "pseudonyms.key"
pseudonyms = "random"
nonce_key = "nonces.key"
token_key = "tokens.key"
context_start = 600
context_life = 3_600
approval_wait = 86_400
schedules = true
schedule_login = 60
actions = ["inventory.*"]
schemas = ["schemas/inventory.json", "/etc/pricing.json"]
cors = ["https://app.example.org"]
proxies = 1
[[edge.issuers]]
issuer = "https://idp.example.org"
claims = {department = "dep"}
introspection = "https://idp.example.org/introspect"
client = "edge"
client_key = "client.pem"
scopes = ["read"]
[egress]
agent = "way-out"
authorities = "authorities.pem"

[egress.apis.crm]
url = "https://crm.example.com"
operations = ["GET /customers/{customer}"]
grant = "token_exchange"
key = "crm.key"
key_header = "X-Key"
client_key = "/etc/crm.pem"
client_svid = true
audience = "crm"
resource = "https://crm.example.com"
scope = "read"
users = ["https://idp.example.org"]
networks = ["10.20.0.0/16"]
headers = ["x-tenant"]
tools = ["search_*"]
card = "/.well-known/agent-card.json"
seconds = 2.5

[console]
address = "0.0.0.0:8445"
url = "https://console.example.org"
certificate = "console.pem"
key = "/etc/console.key"
plaintext = true
edge = "https://api.example.org"
issuer = "https://idp.example.org"
client_id = "console"
scope = "openid sealbus:approve roles"
resource = "https://api.example.org"
queues = ["managers"]

[client]
name = "web"
token_service = "https://edge:8444"
issuer = "https://idp.example.org"
client_id = "sealbus-cli"
scope = "openid offline_access"
resource = "https://api.example.org"
redirect_uri = "http://127.0.0.1:7777/callback"
logins = "logins.json"
[control]
backups = "/mnt/backup"
[control.callout]
issuer = "keys/issuer.seed"
xkey = "keys/xkey.seed"
nkey = "/etc/user.seed"
accounts = ["APP", "ACME"]
servers = ["NABC"]
longest = 3600
[control.notary]
origin = "log.example.org/audit"
keys = ["a.key", "/etc/b.key"]
folder = "log"
stream = "AUDIT-2026"
previous = "before/checkpoint"
lease = 5
whole = true
witnesses = "witnesses.policy"
[control.witness]
address = "0.0.0.0:8446"
certificate = "witness.pem"
key = "/etc/witness.key"
plaintext = true
rate = 50
signing_keys = ["w.key", "/etc/w2.key"]
folder = "witness"
[[control.witness.logs]]
origin = "log.example.com/audit"
keys = ["example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"]
[control.log]
address = "0.0.0.0:8447"
certificate = "log.pem"
key = "/etc/log.key"
plaintext = true
rate = 70
folder = "log-copy"
entries = true
[dev]
issuer = "http://127.0.0.1:5/development-only"
access = "/run/idp.json"
[dev.users.dora]
department = "guests"
"""
"""Everything that a settings file can say."""


def load(folder: Path, text: str = SMALLEST, flags: tuple[Flag, ...] = (), **environment: str) -> Settings:
    """Write `text` to sealbus.toml in `folder` and return the settings with only this environment."""
    (folder / "sealbus.toml").write_text(text)
    return load_settings(folder / "sealbus.toml", environment=environment, flags=flags)


def changed(found: Model, **values: object) -> Model:
    """Return settings, or a table of them, with other values."""
    return found.model_copy(update=values)


def smallest_environment(**extra: str) -> dict[str, str]:
    """Return variables that say the least, and `extra`."""
    return {
        "SEALBUS_TRUST_DOMAIN": "example.org",
        "SEALBUS_NATS": "tls://x:1",
        "SEALBUS_POLICY__ENGINE": "embedded",
        **extra,
    }


def origin(settings: Settings, key: str) -> str:
    """Return where the setting `key` was said."""
    (line,) = [line for line in settings.lines if line.key == key]
    return str(line.origin)
