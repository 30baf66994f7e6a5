from __future__ import annotations

import pytest

from sealbus.agents.dev.idp.login import valid_resource


@pytest.mark.parametrize(
    ("resource", "valid"),
    [
        ("https://api.example", True),
        ("http://127.0.0.1:8080/x?y=z", True),
        ("urn:example:api", True),
        ("", False),
        ("api", False),
        ("//api.example", False),
        ("https://api.example#", False),
        ("https://api.example#part", False),
        ("http://[::1", False),
        ("https://api.example/" + "x" * 240, False),
    ],
)
def test_a_resource_is_an_absolute_uri(resource: str, valid: bool) -> None:
    assert valid_resource(resource) is valid
