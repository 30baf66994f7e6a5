package sealbus.authz

import data.sealbus.lib.rules

decision := decide(input)

batch := [decide(request) | some request in input.batch]

decide(request) := rules.allowed("team") if {
	rules.in_order(request) == true
} else := rules.denied("team", request, {})
