# METADATA
# title: The starter policy
# description: |
#   Decides one request (`decision`) or many (`batch`), each as
#   {"allow": bool, "reasons": [string], "obligations": [object], "policy": string}.
#   A request is allowed only where every rule of `decide` holds: what is missing, unknown or of another type denies.
#   Two engines must answer alike and fast; the README of this folder says which forms that leaves.
package sealbus.authz

# METADATA
# entrypoint: true
decision := decide(input)

# METADATA
# description: One decision for each request, in their order; `decide` is total, so that none is left out.
# entrypoint: true
batch := [decide(request) | some request in input.batch]

decide(request) := {"allow": true, "reasons": [], "obligations": [], "policy": "starter"} if {
	caller := data.sealbus.agents[request.subject.id]
	action := data.sealbus.actions[request.action.name]
	user := request.context.user
	granted(caller.actions, request.action.name)
	chain_known(request.context.chain, request.subject.id)
	chain_in_force(request.context.chain)
	in_force("users", user.id)
	in_force("sessions", user.session)
	in_force("clients", user.client)
	user_as_needed(action.user, user)
	within_reach(action.resource, user, request.resource.properties)
	within_limits(action.limits, request.action.properties)
	within_hours(action.hours, request.resource.properties.region, request.context.time)
} else := {"allow": false, "reasons": words, "obligations": [], "policy": "starter"} if {
	words := []
} else := {"allow": false, "reasons": ["incomplete_request"], "obligations": [], "policy": "starter"}

granted(actions, name) if {
	actions[name]
} else if {
	object.get(actions, name, "absent") == "absent"
	parts := split(name, ".")
	some i, _ in parts
	i > 0
	actions[concat(".", array.concat(array.slice(parts, 0, i), ["*"]))]
} else := false

chain_known(chain, sender) if {
	agents := data.sealbus.agents
	sender in chain
	every hop in chain { agents[hop] }
} else := false

chain_in_force(chain) if {
	revoked := data.sealbus.revoked.agents
	every hop in chain { object.get(revoked, hop, false) == false }
} else := false

in_force(kind, id) if {
	object.get(data.sealbus.revoked[kind], id, false) == false
} else := false

user_as_needed("none", _) := true

user_as_needed("required", user) if {
	user.present == true
	user.id != ""
}

within_reach("any", _, _) := true

within_reach("owned", user, properties) if {
	user.present == true
	owns(user.id, properties)
}

owns(id, properties) if {
	properties.owner == id
	id != ""
} else if {
	data.sealbus.users[id].customers[properties.customer]
}

within_limits(limits, properties) if {
	every name, limit in limits {
		value := properties[name]
		is_number(value)
		abs(value) <= limit
	}
}

within_hours(false, _, _) := true

within_hours(true, name, now) if {
	region := data.sealbus.regions[name]
	local := time.parse_rfc3339_ns(now) + (region.utc_offset_minutes * 60000000000)
	region.weekdays[time.weekday(local)]
	clock := time.clock(local)
	region.open <= clock
	clock < region.close
}
