"""An A2A agent outside, as the exit sees it: what a request asks of it, and what its card said it is.

What an agent says of itself steers the language models that choose it, and it may say something else tomorrow. So the policy
is asked with a hash of its card: an agent that changed is another resource.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from sealbus.agents.edge.egress.outside_tools import manifest_of, message_of
from sealbus.agents.sdk.http import ApiAnswer, ApiRequest
from sealbus.envelopes.errors import ResourceNotFound
from sealbus.envelopes.limits import SECOND

HEADERS: Final = frozenset({"a2a-version", "a2a-extensions"})
"""Fields of the protocol's own, which pass in both directions."""
_METHODS: Final = frozenset({"SendMessage", "GetTask", "CancelTask"})
"""All that may be asked. Nothing is streamed through the exit, and nobody else is told of what an agent here has asked."""
_CARD: Final = "card"
_FRESH: Final = 3_600 * SECOND
"""How long a card counts: what an agent says now is not what it said yesterday."""


class AgentRequests:
    """What is known of one agent. `card` is the path of its card; `clock` gives microseconds."""

    def __init__(self, card: str, clock: Callable[[], int]) -> None:
        self._path = card
        self._clock = clock
        self._card = ""
        self._at = 0

    def properties(self, request: ApiRequest) -> Mapping[str, str]:
        """Return the properties of what a request asks for: `call`, its method or `card`, and `manifest`, the card's hash.

        The hash is empty if the card was not got in the last hour. Raises `ResourceNotFound` for what nobody may ask for.
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
        """Learn what the card says, if it was asked for; of one that is no object nothing is known."""
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
