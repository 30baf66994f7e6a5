"""A simulation of a whole site: every step of every process, and every fault, follows from one seed.

`loop` decides what runs next, on which host, and when. `network` carries messages between hosts and the broker, whose rules
are `sealbus.agents.dev.memory.jetstream`. `processes` are the real workers, clients and notaries. `plan` says what they do
and which faults harm them, and `parts` what only some seeds have: schedules (`clerk`), chains (`vault`) and revocations
(`revoking`). `run` runs a plan, and `promises.promises` says which promise was broken. `shrink` finds a smaller plan that
breaks the same promise, and `timeline` draws it.
"""
