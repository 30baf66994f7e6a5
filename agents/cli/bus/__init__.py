"""Commands that publish, call and ask: `sealbus pub`, `call`, `task`, `schedule`, `dead`, `agent`, `refused`."""
