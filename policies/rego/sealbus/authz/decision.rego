# METADATA
# title: The starter policy
# description: |
#   Decides one request (`decision`) or many (`batch`), each as
#   {"allow": bool, "reasons": [string], "obligations": [object], "policy": string}.
#   A request is allowed only if it is in order by the rules of the library, with nothing of its own beside them:
#   anything missing, unknown or of a wrong type denies. `data.sealbus.registry`, next to this folder, defines who may
#   do what.
package sealbus.authz

import data.sealbus.lib.rules

# METADATA
# entrypoint: true
decision := decide(input)

# METADATA
# description: One decision for each request, in order; `decide` is total, so that none is left out.
# entrypoint: true
batch := [decide(request) | some request in input.batch]

decide(request) := rules.allowed("starter") if {
	rules.in_order(request) == true
} else := rules.denied("starter", request, {})
