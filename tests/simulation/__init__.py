"""A simulation of a whole site: every step of every process, and every fault, follows from one seed.

`loop` decides what runs next, on which host, and when. `network` carries messages between hosts and the broker, whose rules
are `sealbus.agents.dev.memory.jetstream`. `processes` are the real workers, clients and notaries. `faults` harms them, and
`properties` says which promise was broken. `run` runs a plan, `shrink` finds a smaller one that breaks the same promise, and
`timeline` draws it.
"""
