"""A model without a network, for tests and for a first try: it calls a tool with the numbers that it reads."""

import re

from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart, UserPromptPart
from pydantic_ai.models.function import AgentInfo, FunctionModel


def say(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    """Return the next thing that the model says: a tool to call, or what a tool has answered."""
    last = messages[-1].parts[-1]
    if isinstance(last, ToolReturnPart):
        return ModelResponse(parts=[TextPart(str(last.content))])
    numbers = re.findall(r"\d+", str(last.content) if isinstance(last, UserPromptPart) else "")
    if len(numbers) == 1:
        return ModelResponse(parts=[ToolCallPart("orders_read", {"order_id": numbers[0]})])
    if len(numbers) == 2:
        return ModelResponse(parts=[ToolCallPart("orders_change", {"order_id": numbers[0], "quantity": numbers[1]})])
    return ModelResponse(parts=[TextPart("Which order?")])


offline = FunctionModel(say)
