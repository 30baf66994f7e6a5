"""SPIFFE IDs and trust domains: canonical, or refused (SPEC.md section 1; SPIFFE-ID.md section 2).

Nothing is normalized. IDs are signed and compared byte by byte, so text that would need lower-casing, decoding or resolving
is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from sealbus.envelopes.errors import Code, EnvelopeError
from sealbus.envelopes.limits import DEFAULT_LIMITS

_TRUST_DOMAIN: Final = re.compile(r"[a-z0-9._-]{1,255}")
_SPIFFE_ID: Final = re.compile(r"spiffe://([a-z0-9._-]{1,255})((?:/[A-Za-z0-9._-]+)+)")
_DOT_SEGMENT: Final = re.compile(r"/\.\.?(?:/|$)")
_SCHEME: Final = "spiffe://"


@dataclass(frozen=True, slots=True, order=True)
class TrustDomain:
    """The name of a trust domain, `[a-z0-9._-]{1,255}`, without the scheme. Raises `EnvelopeError` (`malformed`)."""

    name: str

    def __post_init__(self) -> None:
        if type(self.name) is not str or not _TRUST_DOMAIN.fullmatch(self.name):
            raise EnvelopeError(Code.MALFORMED, 0, "trust domain")

    def __str__(self) -> str:
        return self.name

    def id(self, path: str) -> SpiffeId:
        """Return the SPIFFE ID of `path` in this trust domain."""
        if not path.startswith("/"):
            # It would become part of the trust domain.
            raise EnvelopeError(Code.MALFORMED, 0, "path of a SPIFFE ID")
        return SpiffeId(f"{_SCHEME}{self.name}{path}")


@dataclass(frozen=True, slots=True, order=True)
class SpiffeId:
    """A workload's SPIFFE ID, as it is in signed bytes. It always has a path, and at most 2,048 bytes.

    Raises `EnvelopeError` (`malformed`, step 0) for every other text. It equals only another `SpiffeId`, never a str.
    """

    value: str

    def __post_init__(self) -> None:
        # The length comes first: the pattern is linear, but a peer's text may be of any length. Matches are pure ASCII.
        if (
            type(self.value) is not str
            or len(self.value) > DEFAULT_LIMITS.spiffe_id_bytes
            or not _SPIFFE_ID.fullmatch(self.value)
            or _DOT_SEGMENT.search(self.value)
        ):
            raise EnvelopeError(Code.MALFORMED, 0, "SPIFFE ID")

    def __hash__(self) -> int:
        # Python caches the hash of the text. IDs are the keys of most lookups for a message.
        return hash(self.value)

    @classmethod
    def parse(cls, text: str) -> SpiffeId:
        """Parse a SPIFFE ID, as the constructor does; cheap for a known ID."""
        return _parse(text)

    @property
    def trust_domain(self) -> TrustDomain:
        """The trust domain that vouches for this ID."""
        return _trust_domain(self.value[len(_SCHEME) : self.value.index("/", len(_SCHEME))])

    @property
    def path(self) -> str:
        """The path, with its leading slash."""
        return self.value[self.value.index("/", len(_SCHEME)) :]

    def __str__(self) -> str:
        return self.value


# Both caches are bounded, hold valid values only, and save time: at most 8 MiB of hostile but valid IDs.
@lru_cache(maxsize=4096)
def _parse(text: str) -> SpiffeId:
    return SpiffeId(text)


@lru_cache(maxsize=1024)
def _trust_domain(name: str) -> TrustDomain:
    return TrustDomain(name)
