# METADATA
# title: The starter policy
# description: |
#   Decides one request (`decision`) or many (`batch`), each as
#   {"allow": bool, "reasons": [string], "obligations": [object], "policy": string}.
#   A request is allowed only where every condition of `decide` holds: whatever is missing, unknown or of another
#   type denies. Who may do what stands in `data.sealbus.registry`, beside this folder.
package sealbus.authz

# METADATA
# entrypoint: true
decision := decide(input)

# METADATA
# description: One decision for each request, in their order; `decide` is total, so that none is left out.
# entrypoint: true
batch := [decide(request) | some request in input.batch]

# The conditions stand here in full, with the registry looked up once: a function or a reference to `data` costs more
# than most of what it would decide. Each condition has its word in `reasons`. The last branch is for a request, or a
# registry, that lacks what even the reasons need.
decide(request) := {"allow": true, "reasons": [], "obligations": [], "policy": "starter"} if {
	registry := data.sealbus.registry
	action := registry.actions[request.action.name]
	user := request.context.user

	# The caller may do this.
	registry.agents[request.subject.id].actions[request.action.name] == true

	# Everyone that the work came through is known and in force, the caller among them: no chain, no answer.
	request.subject.id in request.context.chain
	every hop in request.context.chain {
		registry.agents[hop]
		object.get(registry.revoked.agents, hop, false) == false
	}

	# So is the user, if any.
	object.get(registry.revoked.users, user.id, false) == false
	object.get(registry.revoked.sessions, user.session, false) == false
	object.get(registry.revoked.clients, user.client, false) == false

	# What the action was declared to need.
	user_as_needed(action.user, user)
	within_reach(action.resource, request, registry.users)
	every field, limit in action.limits {
		request.action.properties[field] >= 0
		request.action.properties[field] <= limit
	}
	within_hours(action.hours, request, registry.regions)
} else := {"allow": false, "reasons": words, "obligations": obligations(request, words), "policy": "starter"} if {
	words := reasons(request)
} else := {"allow": false, "reasons": ["incomplete"], "obligations": [], "policy": "starter"}
