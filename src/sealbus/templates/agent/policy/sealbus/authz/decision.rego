# METADATA
# title: The policy of demo
# description: What is special about it; all else is sealbus' own rules, with the data in `sealbus/registry`.
package sealbus.authz

import data.sealbus.lib.rules

# METADATA
# entrypoint: true
decision := decide(input)

# METADATA
# entrypoint: true
batch := [decide(request) | some request in input.batch]

decide(request) := rules.allowed("demo") if {
	rules.in_order(request) == true
	small_enough(request) == true
} else := rules.denied("demo", request, {"too_much_at_once": small_enough(request)})

# Nobody changes an order to more than this at once.
small_enough(request) if {
	request.action.name != "demo.change"
} else if {
	request.action.properties.quantity <= data.demo.limits.quantity
} else := false
