"""A model without a network that believes every text: it does what a user asks for, and what a tool's answer tells it to do."""

import re

from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel


def say(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    """Return what the model says next: tools to call, or what they have answered."""
    parts = messages[-1].parts
    text = " / ".join(str(one.content) for one in parts if hasattr(one, "content"))
    calls = [
        ToolCallPart("refunds_pay", {"order_id": order, "cents": int(cents or 30_000)})
        for order, cents in re.findall(r"refund order (\d+)(?: with (\d+) cents)?", text)
    ]
    if not calls and not isinstance(parts[-1], ToolReturnPart):
        calls = [ToolCallPart("orders_read", {"order_id": order}) for order in re.findall(r"order (\d+)", text)]
    return ModelResponse(parts=calls or [TextPart(text)])


offline = FunctionModel(say)
