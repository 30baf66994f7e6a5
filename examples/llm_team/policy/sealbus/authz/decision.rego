package sealbus.authz

import data.sealbus.lib.rules

decision := decide(input)

batch := [decide(request) | some request in input.batch]

decide(request) := rules.allowed("team") if {
	rules.in_order(request) == true
	pays_itself(request) == true
} else := rules.denied("team", request, {"not_by_mcp": pays_itself(request)})

# Who comes by MCP is a model that we do not know, for somebody who may not have seen what it read: it looks up, and pays nothing.
pays_itself(request) if {
	request.action.name != "refunds.pay"
} else if {
	object.get(request.context.user.claims, "door", "") != "mcp"
} else := false
