"""The agent `desk`: a language model that talks to users, and asks `orders` and `refunds` for the user it talks to.

It is given no permission of its own to pay: each tool is a message for its user, which the policy decides, and a large refund waits
until a person approves it. So it does not matter what a text that it reads tells it to do.
"""

import os

from pydantic_ai import Agent as Model
from sealbus import Agent, Context
from sealbus.agents.adapters.pydantic_ai import as_handler, bus_tools

from desk.offline import offline
from orders.agent import read
from refunds.agent import pay

agent = Agent("desk")
model = Model(
    os.environ.get("MODEL") or offline,
    deps_type=Context,
    instructions="Help users with their orders.",
    tools=bus_tools(read, pay),
)
ask = agent.task("ask", timeout=120)(as_handler(model))
