"""Language models on the bus: actions as a framework's tools, and a framework's model as a handler.

A model has no permission of its own. Each use of a tool is a message for the user of the message that is being handled, and
the policy of the receiving agent decides about it. Each framework has a module, which alone imports it (docs/llm.md).
"""
