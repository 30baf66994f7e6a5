package sealbus.authz

import data.sealbus.lib.rules

decision := decide(input)

batch := [decide(request) | some request in input.batch]

decide(request) := rules.allowed("shop") if {
	rules.in_order(request) == true
	small_enough(request) == true
} else := rules.denied("shop", request, {"too_much_at_once": small_enough(request)})

# What is special about this shop: how much one order may change at once.
small_enough(request) if {
	request.action.name != "inventory.update"
} else if {
	request.action.properties.quantity <= data.shop.limits.quantity
} else := false
