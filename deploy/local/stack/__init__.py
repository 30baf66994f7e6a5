"""The real components on one machine, without containers: each a process with the configuration that stands beside this.

`make stack` and the integration tests start the same programs through this package, so that a configuration in
`deploy/local/` is one that has run.
"""
