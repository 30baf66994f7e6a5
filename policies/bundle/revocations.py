"""The operator's revocations by time: credentials of a workload that were issued before a given time are refused.

They are part of the policy's data, so that they are pushed, signed and put in force in the same way as everything else:
`data.sealbus.registry.issued_before`, microseconds since the Unix epoch by SPIFFE ID. Rego never reads them: a credential is
refused before any policy is asked (SPEC.md section 5).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from sealbus.envelopes.encoding.strict_json import Json
from sealbus.envelopes.errors import EnvelopeError
from sealbus.envelopes.trust.spiffe_id import SpiffeId
from sealbus.policies.decision.documents import DataDocument

__all__ = ["ISSUED_BEFORE", "issued_before"]

ISSUED_BEFORE: Final = ("sealbus", "registry", "issued_before")
"""Path of the document in the data."""


def issued_before(data: DataDocument) -> Mapping[SpiffeId, int]:
    """Return the revocations in a policy's `data`, none if there is no such document.

    Raises `ValueError` for anything but times by SPIFFE ID: a misread revocation would revoke nothing.
    """
    value: Json = data
    for name in ISSUED_BEFORE:
        if isinstance(value, dict) and name not in value:
            return MappingProxyType({})
        value = value[name] if isinstance(value, dict) else None
    if not isinstance(value, dict):
        raise _refused("is no object, or stands in none")
    found: dict[SpiffeId, int] = {}
    for text, time in value.items():
        if type(time) is not int or time < 0:
            raise _refused("holds a time that is no microseconds since the Unix epoch")
        try:
            found[SpiffeId.parse(text)] = time
        except EnvelopeError as error:
            raise _refused(f"holds {text[:255]!r}, which is no SPIFFE ID") from error
    return MappingProxyType(found)


def _refused(text: str) -> ValueError:
    return ValueError(f"data.{'.'.join(ISSUED_BEFORE)} {text}")
