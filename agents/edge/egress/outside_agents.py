"""An A2A agent outside, as the exit sees it: the method of a request, and the hash of the agent's card.

The card steers the language models that choose the agent, and it may change at any time. So the policy is asked with a hash
of the card: an agent whose card changed is another resource.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from sealbus.agents.edge.egress.outside_tools import manifest_of, message_of
from sealbus.agents.sdk.http import ApiAnswer, ApiRequest
from sealbus.envelopes.errors import ResourceNotFound
from sealbus.envelopes.limits import SECOND

HEADERS: Final = frozenset({"a2a-version", "a2a-extensions"})
"""Fields of the protocol, which pass in both directions."""
_METHODS: Final = frozenset({"SendMessage", "GetTask", "CancelTask"})
"""The allowed methods. The exit streams nothing, and lets no push notification go elsewhere."""
_CARD: Final = "card"
_FRESH: Final = 3_600 * SECOND
"""How long a card is valid, because an agent may change it."""


class AgentRequests:
    """The state of one agent. `card` is the path of its card; `clock` gives microseconds."""

    def __init__(self, card: str, clock: Callable[[], int]) -> None:
        self._path = card
        self._clock = clock
        self._card = ""
        self._at = 0

    def properties(self, request: ApiRequest) -> Mapping[str, str]:
        """Return the properties of a request: `call`, its method or `card`, and `manifest`, the card's hash.

        The hash is empty if the card was not read in the last hour. Raises `ResourceNotFound` for a request that is never
        allowed.
        """
        if self._is_card(request):
            return {"call": _CARD, "manifest": ""}
        if request.method != "POST":
            raise ResourceNotFound("only JSON-RPC")
        message = message_of(request.body)
        method, params = message.get("method"), message.get("params")
        if not isinstance(method, str) or method not in _METHODS or not isinstance(params, Mapping):
            raise ResourceNotFound("no such method")
        configuration = params.get("configuration", {})
        if not isinstance(configuration, Mapping) or any("push" in name.lower() for name in configuration):
            raise ResourceNotFound("answers come here, and nowhere else")
        return {"call": method, "manifest": self._manifest()}

    def answered(self, request: ApiRequest, answer: ApiAnswer) -> None:
        """Remember the hash of the card, if the request was for it; a card that is no object has none."""
        if not self._is_card(request) or answer.status != 200:
            return
        try:
            self._card, self._at = manifest_of(message_of(answer.body)), self._clock()
        except ResourceNotFound:
            self._card = ""

    def _is_card(self, request: ApiRequest) -> bool:
        return request.method == "GET" and request.path == self._path

    def _manifest(self) -> str:
        return self._card if self._clock() - self._at < _FRESH else ""
