"""The cards of agents: who they are, where they are asked, and what they can do, signed by the edge.

Each is signed twice by the same key: as a whole, and without its security schemes. `@a2a-js/sdk` 1.3.0 reads no scheme of
a card as JSON is written, and so verifies the second; a verifier takes a card for which one signature holds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

from a2a.types import (
    AgentCapabilities,
    AgentCard,
    AgentCardSignature,
    AgentExtension,
    AgentInterface,
    AgentSkill,
    HTTPAuthSecurityScheme,
    SecurityRequirement,
    SecurityScheme,
    StringList,
)
from a2a.utils.constants import PROTOCOL_VERSION_CURRENT
from a2a.utils.signing import create_agent_card_signer
from google.protobuf.json_format import MessageToDict
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from sealbus.agents.edge.a2a.messages import SKILL, Skills
from sealbus.agents.edge.described_actions import DescribedAction
from sealbus.agents.edge.oauth.private_file import read_private
from sealbus.agents.edge.oauth.tokens.access_token import AccessToken
from sealbus.agents.sdk.bodies import JSON
from sealbus.envelopes.errors import ConfigurationError

EXTENSION: Final = "urn:sealbus:a2a:skills:v1"
"""The extension that says how a message names its skill, and what each skill takes and gives."""
_SCHEME: Final = "token"
_KEY_BYTES: Final = 8_192


class CardKey:
    """A P-256 key that signs cards, and its id, which is its thumbprint (RFC 7638)."""

    def __init__(self, pem: bytes) -> None:
        try:
            key = ECKey.import_key(pem)
        except (JoseError, ValueError) as error:
            raise ConfigurationError("edge.a2a.card_key is no key in PEM") from error
        if key.curve_name != "P-256" or not key.is_private:
            raise ConfigurationError("edge.a2a.card_key is no private P-256 key")
        self.id: Final = key.thumbprint()
        self._sign = create_agent_card_signer(pem, {"alg": "ES256", "kid": self.id, "jku": None, "typ": "JOSE"})

    @classmethod
    def read(cls, file: Path) -> CardKey:
        """Return the key in `file`; raise `ConfigurationError` if it is none, or others can read it."""
        return cls(read_private(file, name="edge.a2a.card_key", most=_KEY_BYTES))

    def sign(self, card: AgentCard) -> None:
        """Add our signatures to `card`."""
        plain = AgentCard()
        plain.CopyFrom(card)
        plain.security_schemes.clear()
        card.signatures.extend([self._signature(card), self._signature(plain)])

    def _signature(self, card: AgentCard) -> AgentCardSignature:
        copy = AgentCard()
        copy.CopyFrom(card)
        return self._sign(copy).signatures[-1]


@dataclass(frozen=True)
class Cards:
    """The card of one agent. `url` is the agent's own, `resource` what its tokens are for, `grpc` its gRPC address."""

    agent: str
    skills: Skills
    url: str
    resource: str
    grpc: str | None = None
    push: bool = False
    key: CardKey | None = None

    def public(self) -> AgentCard:
        """Return the card that everybody is shown."""
        return self._card(self.skills.actions.values())

    def of(self, token: AccessToken) -> AgentCard:
        """Return the card with the skills whose scope `token` has. A hint only: each request is decided."""
        return self._card([action for action in self.skills.actions.values() if action.is_in_scope(token)])

    def _card(self, actions: Iterable[DescribedAction]) -> AgentCard:
        actions = [*actions]
        card = AgentCard(
            name=self.agent,
            description=f"The agent {self.agent} behind {self.resource}. A message names one of its skills.",
            version=version("sealbus"),
            supported_interfaces=[*self._interfaces()],
            capabilities=AgentCapabilities(
                streaming=True,
                push_notifications=self.push,
                extended_agent_card=True,
                extensions=[self._extension(actions)],
            ),
            security_schemes={_SCHEME: self._scheme()},
            security_requirements=[_requirement(())],
            default_input_modes=[JSON, "text/plain"],
            default_output_modes=[JSON],
            skills=[_skill(action) for action in actions],
        )
        if self.key is not None:
            self.key.sign(card)
        return card

    def _interfaces(self) -> Iterable[AgentInterface]:
        version = PROTOCOL_VERSION_CURRENT
        yield AgentInterface(url=f"{self.url}/rpc", protocol_binding="JSONRPC", protocol_version=version)
        yield AgentInterface(url=f"{self.url}/v1", protocol_binding="HTTP+JSON", protocol_version=version)
        if self.grpc is not None:
            yield AgentInterface(url=self.grpc, protocol_binding="GRPC", protocol_version=version, tenant=self.agent)

    def _scheme(self) -> SecurityScheme:
        description = f"An access token for {self.resource}; its metadata (RFC 9728) names who issues them."
        return SecurityScheme(
            http_auth_security_scheme=HTTPAuthSecurityScheme(scheme="Bearer", description=description)
        )

    def _extension(self, actions: Iterable[DescribedAction]) -> AgentExtension:
        extension = AgentExtension(
            uri=EXTENSION,
            description=f"A message names its skill as {SKILL} in its metadata, and has the skill's arguments as data.",
        )
        schemas = {action.name: {"takes": action.takes, "gives": action.gives or {}} for action in actions}
        # Numbers of schemas have to be numbers of JSON.
        extension.params.update({"skills": json.loads(json.dumps(schemas))})
        return extension


def _skill(described: DescribedAction) -> AgentSkill:
    action = described.action
    return AgentSkill(
        id=described.name,
        name=described.name,
        description=action.summary or described.name,
        tags=[action.kind],
        output_modes=sorted(action.gives) or [JSON],
        security_requirements=[_requirement((described.scope,))] if described.scope else [],
    )


def _requirement(scopes: Iterable[str]) -> SecurityRequirement:
    return SecurityRequirement(schemes={_SCHEME: StringList(list=scopes)})


def card_document(card: AgentCard) -> bytes:
    """Return a card as JSON."""
    return json.dumps(MessageToDict(card), ensure_ascii=False, separators=(",", ":")).encode()
