"""Whether a process makes spans is asked once; who asks for none imports nothing of OpenTelemetry."""

from __future__ import annotations

import subprocess
import sys

import pytest
from support.otlp import received_spans

FIND = "from sealbus.agents.runtime.tracing import find_tracer\nprint(find_tracer() is not None)\n"
PROVIDER = "from opentelemetry.sdk.trace import TracerProvider\ntrace.set_tracer_provider(TracerProvider())\n"
EXPORT = """
from sealbus.agents.runtime.tracing import exporting_spans, find_tracer
from sealbus.envelopes.errors import ConfigurationError
try:
    with exporting_spans("shop"):
        tracer = find_tracer()
        if tracer is not None:
            with tracer.request("00-" + "1" * 32 + "-" + "2" * 16 + "-01") as request:
                request.answered("GET", "/v1/x", 500, "aa")
        print(tracer is not None)
except ConfigurationError as error:
    print(error)
import sys
print("opentelemetry.sdk" in sys.modules)
"""


def run(code: str, **environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60, env=environment
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_without_a_provider_there_is_no_tracer() -> None:
    assert run(FIND) == ["False"]
    assert run(f"from opentelemetry import trace\n{FIND}") == ["False"]
    assert run(f"from opentelemetry import trace\n{PROVIDER}{FIND}") == ["True"]


@pytest.mark.parametrize(
    "environment", [{}, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"}]
)
def test_nothing_is_set_up_unless_the_environment_asks_for_it(environment: dict[str, str]) -> None:
    assert run(EXPORT, **environment) == ["False", "False"]


def test_an_endpoint_without_the_packages_is_an_error_that_says_what_to_install() -> None:
    missing = "import sys\nsys.modules['opentelemetry.exporter.otlp.proto.http.trace_exporter'] = None\n"
    said = run(missing + EXPORT, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9")
    assert "pip install 'sealbus[otel]'" in said[0]


@pytest.mark.parametrize(("environment", "service"), [({}, "shop"), ({"OTEL_SERVICE_NAME": "mine"}, "mine")])
def test_spans_are_exported_where_the_environment_says(environment: dict[str, str], service: str) -> None:
    with received_spans() as spans:
        assert run(EXPORT, OTEL_EXPORTER_OTLP_ENDPOINT=spans.endpoint, **environment) == ["True", "True"]
        [span] = spans.wait_for(1, trace=b"\x11" * 16)
    assert (span.service, span.name, span.kind) == (service, "GET /v1/x", "server")
    assert span.attributes["http.response.status_code"] == 500
    assert span.raw.status.code == 2


def test_a_provider_of_the_agents_own_stays() -> None:
    code = f"from opentelemetry import trace\n{PROVIDER}mine = trace.get_tracer_provider()\n{EXPORT}"
    code += "print(trace.get_tracer_provider() is mine)\n"
    assert run(code, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9") == ["True", "True", "True"]


def test_a_share_of_what_begins_here_is_sampled_unless_the_environment_says_which() -> None:
    code = """
from sealbus.agents.runtime.tracing import exporting_spans
from opentelemetry import trace
with exporting_spans("shop"):
    print(trace.get_tracer_provider().sampler.get_description())
"""
    asked = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    assert "TraceIdRatioBased{0.05}" in run(code, **asked)[0]
    assert "AlwaysOn" in run(code, **asked, OTEL_TRACES_SAMPLER="always_on")[0]
