"""Alert rules and dashboard: each name in them is one of the code and of running processes, each alert was seen to fire."""

from __future__ import annotations

import importlib.util
import json
import re
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx2
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from support.dev_process import DevFolder, running
from support.ports import held_port
from support.prometheus import require_prometheus, running_prometheus
from support.x509 import ThrowawayCa

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "sealbus.rules.yaml"
FIRING = ROOT / "deploy" / "prometheus" / "sealbus.rules.test.yaml"
DASHBOARD = ROOT / "deploy" / "grafana" / "sealbus.json"
APP = ROOT / "docs" / "tour" / "app.py"

TRUSTS_ANYBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
TRUSTS_ANYBODY.check_hostname = False
TRUSTS_ANYBODY.verify_mode = ssl.CERT_NONE
EVERYWHERE = {"instance", "job", "le"}
"""Labels that Prometheus adds, or that each bucket has."""
RUNBOOKS = "https://docs.example.org/sealbus/alerts.html"
"""Where alerts point to, until somebody says where the page is published: `make docs` gives it this name."""
NOT_HERE = {"sealbus_policy_refused_total"}
"""Metrics of a deployment whose policy is in a bucket, which `sealbus dev` has none of."""
_RECORDED = re.compile(r"\bsealbus:\w+:\w+")
_NAME = re.compile(r"\b(?:sealbus_|process_)\w+")
_WORDS = re.compile(r"\b(?:by|on|group_right|group_left)\s*\(([^)]*)\)")
_MATCHED = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"")


def rules() -> list[dict[str, Any]]:
    return [one for group in yaml.safe_load(RULES.read_text())["groups"] for one in group["rules"]]


def panels() -> list[dict[str, Any]]:
    return [one for one in json.loads(DASHBOARD.read_text())["panels"] if one["type"] != "row"]


def expressions() -> list[str]:
    return [one["expr"] for one in rules()] + [target["expr"] for one in panels() for target in one["targets"]]


def whole(expression: str) -> str:
    """Return an expression with what it calls by a recorded name in place."""
    recorded = {one["record"]: one["expr"] for one in rules() if "record" in one}
    return _RECORDED.sub(lambda found: f"({recorded[found[0]]})", expression)


def metric(name: str) -> str:
    return re.sub(r"_(bucket|count|sum)$", "", name) if name.endswith(("_seconds_bucket", "_seconds_count")) else name


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_reference", ROOT / "scripts" / "docs_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_each_name_and_label_is_one_of_the_code(reference: ModuleType) -> None:
    known = reference.find_metrics()
    for expression in map(whole, expressions()):
        names = {metric(name) for name in _NAME.findall(expression)}
        assert names or "up{" in expression, expression
        ours = {name for name in names if name.startswith("sealbus_")}
        assert ours <= known.keys(), expression
        words = {word for found in _WORDS.findall(expression) for word in re.findall(r"\w+", found)}
        labels = words | set(_MATCHED.findall(expression))
        assert labels <= EVERYWHERE | {label for name in ours for label in known[name].labels}, expression


def test_each_alert_was_seen_to_fire_and_is_explained() -> None:
    alerts = [one for one in rules() if "alert" in one]
    fired = {
        one["alertname"]
        for test in yaml.safe_load(FIRING.read_text())["tests"]
        for one in test["alert_rule_test"]
        if one.get("exp_alerts")
    }
    headings = re.findall(r"^### (\w+)\n(\S.{60,})", (ROOT / "docs" / "alerts.md").read_text(), re.MULTILINE)
    assert fired == {one["alert"] for one in alerts} == {name for name, _ in headings}
    chapters = re.findall(
        r"^## (?:The )?(\w+)\n(.*?)(?=^## |\Z)", (ROOT / "docs" / "alerts.md").read_text(), re.MULTILINE | re.DOTALL
    )
    groups = {
        group["name"]: [one["alert"] for one in group["rules"] if "alert" in one]
        for group in yaml.safe_load(RULES.read_text())["groups"]
    }
    del groups["sealbus-figures"]
    assert groups == {
        f"sealbus-{name.lower()}": re.findall(r"^### (\w+)", text, re.MULTILINE) for name, text in chapters
    }
    for one in alerts:
        assert one["annotations"]["runbook_url"] == f"{RUNBOOKS}#{one['alert'].lower()}"
        assert one["labels"]["severity"] in {"critical", "warning"}


def test_rules_hold_and_each_alert_fires() -> None:
    promtool = require_prometheus("promtool")
    config = RULES.with_name("prometheus.yaml")
    for verb, what, file in (("check", "rules", RULES), ("test", "rules", FIRING), ("check", "config", config)):
        done = subprocess.run([promtool, verb, what, file], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("text", [RULES, ROOT / "docs" / "alerts.md"], ids=["rules", "page"])
def test_runbooks_are_where_they_are_published_after_the_line_that_is_written_down(tmp_path: Path, text: Path) -> None:
    [line] = re.findall(r"sed -i '([^'\n]+)' sealbus\.rules\.yaml$", text.read_text(), re.MULTILINE)
    assert line.startswith(f"s|{RUNBOOKS}|https://YOUR.HOST/")
    address = "https://wiki.bank.example/sealbus/alerts.html"
    rules_there = tmp_path / RULES.name
    rules_there.write_bytes(RULES.read_bytes())
    subprocess.run(["sed", "-i", line.replace("https://YOUR.HOST/alerts.html", address), rules_there], check=True)
    groups = yaml.safe_load(rules_there.read_text())["groups"]
    alerts = [rule for group in groups for rule in group["rules"] if "alert" in rule]
    assert len(alerts) == len([rule for rule in rules() if "alert" in rule])
    for rule in alerts:
        assert rule["annotations"]["runbook_url"] == f"{address}#{rule['alert'].lower()}"


@dataclass(frozen=True, slots=True)
class Shop:
    """A worker, an edge and a control process beside `sealbus dev`, and where each shows its metrics."""

    dev: DevFolder
    edge: str
    targets: tuple[str, ...]

    def metrics(self) -> dict[str, list[dict[str, str]]]:
        """Return the metrics of all processes by name, each with the labels of its samples."""
        found: dict[str, list[dict[str, str]]] = {}
        for target in self.targets:
            text = httpx2.get(f"http://{target}/metrics", timeout=60, trust_env=False).text
            for family in text_string_to_metric_families(text):
                name = f"{family.name}_total" if family.type == "counter" else family.name
                found.setdefault(name, []).extend(sample.labels for sample in family.samples)
        return found

    def ask(self) -> None:
        """Have something allowed, denied and refused."""
        body = '{"item_id": "42", "quantity": 3}'
        assert self.dev.run("pub", "task.inventory.update", body, "--user", "alice", "--wait").returncode == 0
        assert self.dev.run("pub", "task.inventory.update", body, "--user", "carol", "--wait").returncode == 3
        token = self.dev.run("token", "--user", "alice").stdout.strip()
        answer = httpx2.post(
            f"{self.edge}/v1/calls/inventory/read",
            content=body,
            headers={"authorization": f"Bearer {token}", "content-type": "application/json"},
            trust_env=False,
            verify=TRUSTS_ANYBODY,
        )
        assert answer.status_code == 200, answer.text


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    path = tmp_path_factory.mktemp("shop")
    (path / "app.py").write_bytes(APP.read_bytes())
    health = [f"127.0.0.1:{held_port()}" for _ in range(3)]
    with ExitStack() as stack:
        start = ("dev", "--agent", "control", "--port", "0", "--edge-port", "0", "--console-port", "0")
        stack.enter_context(running(path, *start, ready="ready:"))
        # As `sealbus dev` is set up, but for a port and a folder that two processes cannot share.
        said = (path / ".sealbus" / "dev.toml").read_text()
        said = re.sub(r'\n(token_service) = "127[^"]*"', '\n\\1 = "127.0.0.1:0"', said, count=1)
        said = re.sub(r'\nfolder = "[^"]*"', f'\nfolder = "{path / "log"}"', said)
        config = path / "other.toml"
        config.write_text(f'{said}\n[audit]\nspool = "{path / "spool"}"\n')
        with_spool = ("--config", str(config))
        stack.enter_context(
            running(path, "worker", "run", "app.py:agent", "--health", health[0], *with_spool, ready="runs as")
        )
        edge = f"127.0.0.1:{held_port()}"
        config = path / "edge.toml"
        issued = ThrowawayCa("example.org").issue("spiffe://example.org/any")
        for name, pem in (("edge.crt", issued.cert_pem), ("edge.key", issued.key_pem)):
            (path / name).touch(mode=0o600)
            (path / name).write_bytes(pem)
        said = said.replace("\n[edge]\n", '\n[edge]\ncertificate = "edge.crt"\nkey = "edge.key"\n')
        config.write_text(f'{said}\n[control]\nbackups = "{path}"\n')
        stack.enter_context(
            running(
                path,
                *("edge", "serve", "--address", edge, "--health", health[1], "--config", str(config)),
                ready="edge runs",
            )
        )
        stack.enter_context(
            running(
                path,
                *(
                    "control",
                    "run",
                    "--roles",
                    "streams,notary,backups",
                    "--health",
                    health[2],
                    "--config",
                    str(config),
                ),
                ready="control runs",
            )
        )
        yield Shop(DevFolder(path), f"https://{edge}", tuple(health))


@pytest.mark.nats
@pytest.mark.slow
def test_running_processes_show_each_name_in_rules_and_dashboard(shop: Shop) -> None:
    shop.ask()
    shown = shop.metrics()
    for expression in map(whole, expressions()):
        names = {metric(name) for name in _NAME.findall(expression)} - NOT_HERE
        assert names <= shown.keys(), expression
        labels = set(_MATCHED.findall(expression))
        having = {label for name in names for sample in shown[name] for label in sample}
        # What is not ready has no sample while all are ready.
        assert labels <= EVERYWHERE | having | ({"part"} if "sealbus_not_ready" in names else set()), expression


@pytest.mark.nats
@pytest.mark.slow
def test_prometheus_scrapes_them_and_fills_the_dashboard(shop: Shop, tmp_path: Path) -> None:
    with running_prometheus(tmp_path, RULES, shop.targets) as prometheus:
        shop.ask()
        prometheus.scraped(len(shop.targets))
        shop.ask()
        for panel in panels():
            for target in panel["targets"]:
                expression = target["expr"].replace("$__rate_interval", "1m").replace("$instance", ".*")
                # How full streams are is looked at every 5 s, and whether they grow is seen at the next look.
                prometheus.filled(expression)
        groups = prometheus.get("rules")["groups"]
        assert [one for group in groups for one in group["rules"] if one["health"] == "err"] == []
        firing = [one["labels"]["alertname"] for one in prometheus.get("alerts")["alerts"] if one["state"] == "firing"]
        assert firing == []
