"""Commands that send and ask: `sealbus pub`, `call`, `task`, `token`."""
