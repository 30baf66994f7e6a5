"""Settings: their schema, their sources, and the state folder of `sealbus dev`."""
