"""The agent `demo`: a language model that looks up and changes orders for users, which the agent `orders` keeps.

The model is an offline one until MODEL names another, such as `openai:gpt-5`. Whatever it says, its tools ask for the user
behind the question, and the policy decides about each before `orders` does anything.
"""

import os

from pydantic_ai import Agent as Model
from sealbus import Agent, Context
from sealbus.agents.adapters.pydantic_ai import as_handler, bus_tools

from demo.offline import offline
from orders.agent import change, read

agent = Agent("demo")
model = Model(
    os.environ.get("MODEL") or offline,
    deps_type=Context,
    instructions="Help users with their orders.",
    tools=bus_tools(read, change),
)
ask = agent.task("ask", timeout=120, once=True, retry=0)(as_handler(model))
