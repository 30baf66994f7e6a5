"""Settings: their schema, where they come from, and the state folder of `sealbus dev`."""
