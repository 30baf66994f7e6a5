"""Debian's Prometheus for tests: on a free port, with its data in a folder of the test, gone afterwards."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
from support.debian import require_program
from support.ports import held_port

__all__ = ["Prometheus", "require_prometheus", "running_prometheus"]

_WITHIN = 60.0


def require_prometheus(name: str = "prometheus") -> Path:
    """Return the program, `prometheus` or `promtool`; without it skip the test (`require_program`)."""
    return require_program(name, "prometheus")


class Prometheus:
    """A running server."""

    def __init__(self, url: str) -> None:
        self._url = url

    def get(self, path: str, **query: str) -> Any:
        """Return `data` of an answer of its API."""
        said = httpx2.get(f"{self._url}/api/v1/{path}", params=query, timeout=60, trust_env=False).json()
        assert said["status"] == "success", said
        return said["data"]

    def query(self, expression: str) -> list[Any]:
        """Return what an expression gives now."""
        found = self.get("query", query=expression)
        return list(found["result"])

    def filled(self, expression: str) -> None:
        """Wait until an expression gives something."""
        until = time.monotonic() + _WITHIN
        while not self.query(expression):
            assert time.monotonic() < until, expression
            time.sleep(0.2)

    def scraped(self, number: int) -> None:
        """Wait until so many targets were scraped twice, as rates need; the first scrape comes 5 s after the start."""
        until = time.monotonic() + _WITHIN
        while len(self.query("count_over_time(up[1h]) > 1 and up == 1")) < number:
            assert time.monotonic() < until, self.get("targets")
            time.sleep(0.2)


@contextmanager
def running_prometheus(folder: Path, rules: Path, targets: Sequence[str]) -> Iterator[Prometheus]:
    """Run a server that scrapes `targets` every second and evaluates `rules`."""
    program, port = require_prometheus(), held_port()
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(rules)],
        "scrape_configs": [{"job_name": "sealbus", "static_configs": [{"targets": list(targets)}]}],
    }
    file = folder / "prometheus.yaml"
    file.write_text(json.dumps(config))
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                program,
                f"--config.file={file}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        url, until = f"http://127.0.0.1:{port}", time.monotonic() + _WITHIN
        while True:
            try:
                if httpx2.get(f"{url}/-/ready", timeout=1, trust_env=False).is_success:
                    break
            except httpx2.HTTPError:
                pass
            assert process.poll() is None, (folder / "prometheus.log").read_text()
            assert time.monotonic() < until
            time.sleep(0.05)
        yield Prometheus(url)
    finally:
        process.terminate()
        process.wait(10)
