package sealbus.authz

import data.sealbus.lib.rules

decision := decide(input)

batch := [decide(request) | some request in input.batch]

decide(request) := rules.allowed_showing("demo", request) if {
	rules.in_order(request) == true
	small_enough(request) == true
} else := rules.denied("demo", request, {"too_much_at_once": small_enough(request)})

# What is special about demo: how much one order may change at once. The rest is the rules of sealbus, with `registry`.
small_enough(request) if {
	request.action.name != "orders.change"
} else if {
	request.action.properties.quantity <= data.demo.limits.quantity
} else := false
