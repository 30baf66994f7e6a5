"""Commands for a person: `sealbus login`, `logout`, `token`, `approvals`, `mcp`; and about one: `forget`."""
