"""JWTs that others signed: their parts, each with one meaning, and their claims, read by type.

A missing claim or one of another type is refused, never guessed. Nothing here knows an issuer or a key.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from types import MappingProxyType
from typing import Final

from joserfc.errors import JoseError
from joserfc.jws import JWSRegistry

from sealbus.agents.edge.http.limits import EdgeLimits
from sealbus.agents.edge.http.problem import TokenRefused
from sealbus.agents.edge.oauth.issuers import ALGORITHMS
from sealbus.agents.edge.oauth.keys.key_set import VerificationKey
from sealbus.envelopes.encoding.codec import is_text
from sealbus.envelopes.encoding.jws import CompactJws, split_compact
from sealbus.envelopes.encoding.strict_json import Json, parse_object
from sealbus.envelopes.limits import DEFAULT_LIMITS, SECOND
from sealbus.envelopes.message.user_context import ClaimValue

KEYS_IN_HEADER: Final = ("jku", "jwk", "x5u", "x5c")
"""Headers in which a JWT names its own verification key (RFC 7515 section 4.1). No server we support sends them, and
refusing them makes sure that none is followed."""
EXTENSIONS: Final = ("crit", "b64", "zip", "enc")
"""Headers that change how the rest must be read."""
_REGISTRY: Final = JWSRegistry(algorithms=sorted(ALGORITHMS))

_MAX_INTEGER: Final = DEFAULT_LIMITS.max_integer
_LATEST: Final = _MAX_INTEGER // SECOND
"""The last second whose microseconds a context can hold; in the year 2255."""
_ITEMS: Final = DEFAULT_LIMITS.text_items


def parsed(token: str, limits: EdgeLimits) -> tuple[CompactJws, dict[str, Json], dict[str, Json]] | None:
    """Return the token's parts, its header and its claims, each of which has one meaning; nothing is verified.

    None for anything else instead of an exception: those of the parsers hold the parsed text, and would become the context of
    exceptions raised while they are handled.
    """
    try:
        jws = split_compact(token.encode("ascii"))
        header = parse_object(jws.header, depth=limits.token_nesting)
        claims = parse_object(jws.payload, depth=limits.token_nesting)
    except ValueError:
        return None
    return jws, header, claims


def checked_header(
    header: Mapping[str, Json], types: AbstractSet[str], algorithms: AbstractSet[str], limits: EdgeLimits
) -> tuple[str, str | None]:
    """Return the algorithm and the key id of a header that an issuer may have made.

    Raises `TokenRefused` for a key or an extension in it, a type that is not one of `types` (in lower case; `""` is none), an
    algorithm that is not one of `algorithms`, and a `kid` that is no text or too long.
    """
    for name in (*KEYS_IN_HEADER, *EXTENSIONS):
        if name in header:
            raise TokenRefused(f"header: {name}")
    kind = header.get("typ", "")
    if type(kind) is not str or kind.lower() not in types:
        raise TokenRefused("header: typ")
    algorithm = header.get("alg")
    if type(algorithm) is not str or algorithm not in algorithms:
        raise TokenRefused("header: alg")
    kid = header.get("kid")
    if kid is not None and (type(kid) is not str or len(kid) > limits.key_id_bytes):
        raise TokenRefused("header: kid")
    return algorithm, kid


def is_signed(jws: CompactJws, algorithm: str, key: VerificationKey) -> bool:
    """Return whether the signature is one by `key`, under an algorithm that fits it."""
    try:
        method = _REGISTRY.get_alg(algorithm)
        # The key was chosen to fit; a wrong choice must not pass verification.
        method.check_key(key)
        return method.verify(jws.signed, jws.signature, key) is True
    except (JoseError, ValueError):
        return False


class Claims:
    """The claims of one token. Every method but `allowed` raises `TokenRefused`, which names the claim.

    A text is 1 to 256 bytes without control characters, as in a user context: a claim that could not be passed on is refused
    here, where its sender can be told.
    """

    __slots__ = ("_claims",)

    def __init__(self, claims: Mapping[str, Json]) -> None:
        self._claims = claims

    def __contains__(self, name: str) -> bool:
        return name in self._claims

    def text(self, name: str) -> str:
        """Return a text."""
        value = self._claims.get(name)
        if type(value) is not str or not value or not is_text(value):
            raise TokenRefused(name)
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """Return an array of at most 32 texts."""
        value = self._claims.get(name)
        if type(value) is not list or len(value) > _ITEMS:
            raise TokenRefused(name)
        texts = tuple([item for item in value if type(item) is str and is_text(item)])
        if len(texts) != len(value):
            raise TokenRefused(name)
        return texts

    def audiences(self, name: str) -> frozenset[str]:
        """Return the audiences: one text, or an array of texts (RFC 7519 section 4.1.3)."""
        value = self._claims.get(name)
        listed = value if type(value) is list else [value]
        texts = frozenset(item for item in listed if type(item) is str)
        if len(texts) != len(listed):
            raise TokenRefused(name)
        return texts

    def scope(self, name: str) -> tuple[str, ...]:
        """Return scope values: a text, separated by single spaces (RFC 6749 section 3.3), or an array; none if absent."""
        value = self._claims.get(name, "")
        if type(value) is list:
            values = self.texts(name)
        elif type(value) is str:
            values = tuple(value.split(" ")) if value else ()
        else:
            raise TokenRefused(name)
        if len(values) > _ITEMS or not all(scope and " " not in scope and is_text(scope) for scope in values):
            raise TokenRefused(name)
        return values

    def members(self, name: str) -> Mapping[str, Json]:
        """Return the members of an object."""
        value = self._claims.get(name)
        if type(value) is not dict:
            raise TokenRefused(name)
        return value

    def time(self, name: str) -> int:
        """Return a time in microseconds since the Unix epoch. Whole seconds only: no major server sends fractions."""
        value = self._claims.get(name)
        if type(value) is not int or not 0 <= value <= _LATEST:
            raise TokenRefused(name)
        return value * SECOND

    def allowed(self, names: Mapping[str, str]) -> Mapping[str, ClaimValue]:
        """Return the claims that `names` lists, under the names that it gives them.

        A claim that is absent or cannot be in a user context (SPEC.md section 6: a text, an integer, a boolean or an array of
        texts, within its limits) is left out: a policy that needs it then denies.
        """
        values = {ours: _claim_value(self._claims.get(theirs)) for theirs, ours in names.items()}
        return MappingProxyType({name: value for name, value in values.items() if value is not None})


def _claim_value(value: Json) -> ClaimValue | None:
    if type(value) is bool:
        return value
    if type(value) is int:
        return value if -_MAX_INTEGER <= value <= _MAX_INTEGER else None
    if type(value) is str:
        return value if is_text(value) else None
    if type(value) is list and len(value) <= _ITEMS:
        texts = tuple([item for item in value if type(item) is str and is_text(item)])
        return texts if len(texts) == len(value) else None
    return None
