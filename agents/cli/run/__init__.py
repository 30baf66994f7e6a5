"""Commands that run until they are stopped: `sealbus worker`, `edge`, `control`, `dev`, `demo`."""
