"""The edge's MCP server, for both generations of the protocol: actions as tools, and tasks that clients find again.

::

    POST /mcp -> endpoint (token, proof, rates, size, scope) -> the transport of `mcp` -> tool_calls -> actions of the edge

The package `mcp` frames and negotiates. The caller is verified before the package sees a request, and it never sees a token.
"""
