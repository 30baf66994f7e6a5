"""Read the scopes of access tokens from the claim that an issuer's row names, and note issuers whose tokens carry none.

RFC 9068 has a text in `scope`; Okta and Entra ID write `scp`, as an array or a text. A token without the row's claim is
accepted with no scopes, as it may have none. But the row may name the wrong claim, and then every policy that asks for a
scope denies: the note tells operators.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sealbus.agents.edge.oauth.issuers import Issuer
from sealbus.agents.edge.oauth.tokens.jwt import Claims

SCOPE_CLAIMS: Final = ("scope", "scp")
"""Claims in which issuers are known to write scopes; a row may name another."""


def scopes_of(claims: Claims, issuer: Issuer) -> tuple[str, ...]:
    """Return the scopes of a token that its issuer's row lets through; raise `TokenRefused` if they have another form."""
    values = claims.scope(issuer.scope_claim)
    return tuple([value for value in values if issuer.scopes is None or value in issuer.scopes])


class ScopesSeen:
    """Whether the tokens of each issuer have carried scopes since the edge started."""

    def __init__(self, issuers: Sequence[Issuer]) -> None:
        # A row that lets no scope through misses none.
        self._missed: dict[str, str | None] = {row.issuer: None for row in issuers if row.scopes != frozenset()}
        """The note for each issuer: None before its first token, empty once a token carried scopes."""

    def note(self, claims: Claims, issuer: Issuer) -> None:
        """Note a token that was accepted."""
        if self._missed.get(issuer.issuer, "") == "":
            return
        if claims.scope(issuer.scope_claim):
            self._missed[issuer.issuer] = ""
            return
        text = f"the tokens of {issuer.issuer} carry no scopes in the claim {issuer.scope_claim}"
        other = next((name for name in SCOPE_CLAIMS if name != issuer.scope_claim and name in claims), None)
        hint = (
            f', but have {other}: set scope_claim = "{other}" in its row of edge.issuers' if other is not None else ""
        )
        self._missed[issuer.issuer] = text + hint

    def notes(self) -> dict[str, str]:
        """Return notes for operators, by part; empty if there are none."""
        texts = [text for text in self._missed.values() if text]
        return {"scopes": "; ".join(texts)} if texts else {}
