# Why a request is denied: a stable word for each condition of `decide` that does not hold, in alphabetical order, and
# whether the caller may see them. Nothing here can allow.
package sealbus.authz

reasons(request) := words if {
	registry := data.sealbus.registry
	revoked := registry.revoked
	user := request.context.user
	action := object.get(registry.actions, request.action.name, undeclared)
	conditions := {
		"action_not_granted": granted(registry.agents, request),
		"not_owner": within_reach(action.resource, request, registry.users),
		"outside_business_hours": within_hours(action.hours, request, registry.regions),
		"over_limit": within_limits(action.limits, request.action.properties),
		"revoked_agent": none_revoked(revoked.agents, request.context.chain),
		"revoked_client": none_revoked(revoked.clients, [user.client]),
		"revoked_session": none_revoked(revoked.sessions, [user.session]),
		"revoked_user": none_revoked(revoked.users, [user.id]),
		"unknown_action": known(registry.actions, request.action.name),
		"unknown_agent": known(registry.agents, request.subject.id),
		"unknown_chain_agent": chain_known(registry.agents, request),
		"user_required": user_as_needed(action.user, user),
	}
	words := sort([word | some word, holds in conditions; not holds])
}

# An action that nobody declared breaks only `unknown_action` and, mostly, `action_not_granted`: nothing says what else
# it would need.
undeclared := {"user": "none", "resource": "any", "limits": {}, "hours": false}

granted(agents, request) if {
	agents[request.subject.id].actions[request.action.name] == true
} else := false

known(things, id) if {
	things[id]
} else := false

chain_known(agents, request) if {
	request.subject.id in request.context.chain
	every hop in request.context.chain {
		agents[hop]
	}
} else := false

none_revoked(revoked, ids) if {
	every id in ids {
		object.get(revoked, id, false) == false
	}
} else := false

within_limits(limits, properties) if {
	every field, limit in limits {
		properties[field] >= 0
		properties[field] <= limit
	}
} else := false

# Reasons tell a caller about users, regions and limits: they are shown to agents that the registry trusts with them,
# unless one of the chain was revoked.
obligations(request, words) := [{"type": "show_reasons"}] if {
	data.sealbus.registry.agents[request.subject.id].show_reasons == true
	not "revoked_agent" in words
} else := []
