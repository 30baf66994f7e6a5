"""Commands that publish, call and ask: `sealbus pub`, `call`, `task`, `token`."""
