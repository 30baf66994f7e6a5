"""Commands for a person and their login: `sealbus login`, `logout`, `token`, `approvals`, `mcp`."""
