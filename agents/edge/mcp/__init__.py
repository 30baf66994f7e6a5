"""The edge's MCP server, for both generations of the protocol: actions as tools, tasks that are found again.

::

    POST /mcp -> endpoint (token, proof, rates, size, scope) -> the transport of `mcp` -> tool_calls -> actions of the edge

The package `mcp` frames and negotiates. Who asks is verified before it sees anything, and it never sees a token.
"""
