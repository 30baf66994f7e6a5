# METADATA
# title: The starter policy
# description: |
#   Decides one request (`decision`) or many (`batch`), each as
#   {"allow": bool, "reasons": [string], "obligations": [object], "policy": string}.
#   A request is allowed only if every condition of `decide` holds: anything missing, unknown or of a wrong type
#   denies. `data.sealbus.registry`, next to this folder, defines who may do what.
package sealbus.authz

# METADATA
# entrypoint: true
decision := decide(input)

# METADATA
# description: One decision for each request, in order; `decide` is total, so that none is left out.
# entrypoint: true
batch := [decide(request) | some request in input.batch]

# Written for speed, because it runs for every message: the conditions are written out in full, the registry is looked up
# once, calls are compared with true and all of it is one file, each of which saves the embedded engine a microsecond or
# more of forty. OPA must be started with --optimize-store-for-read-speed; without it, looking up the registry converts
# the whole registry at each question.
# Every condition has its word in `reasons`. The last branch is for a request, or a registry, that lacks even what the
# reasons need.
decide(request) := {"allow": true, "reasons": [], "obligations": [], "policy": "starter"} if {
	registry := data.sealbus.registry
	action := registry.actions[request.action.name]
	user := request.context.user

	# The caller may do this.
	registry.agents[request.subject.id].actions[request.action.name] == true

	# Everyone in the chain, including the caller, is known and not revoked; an empty chain is denied.
	request.subject.id in request.context.chain
	every hop in request.context.chain {
		registry.agents[hop]
		object.get(registry.revoked.agents, hop, false) == false
	}

	# So is who is behind it, if anybody.
	object.get(registry.revoked.users, user.id, false) == false
	object.get(registry.revoked.sessions, user.session, false) == false
	object.get(registry.revoked.clients, user.client, false) == false
	user_known(user, registry.users) == true

	# The declared needs of the action.
	user_may_reach(action, user, request.resource.properties, registry.users) == true
	every field, limit in action.limits {
		request.action.properties[field] >= 0
		request.action.properties[field] <= limit
	}
	within_hours(action.hours, request, registry.regions) == true
} else := {"allow": true, "reasons": [], "obligations": [], "policy": "starter"} if {
	# Who may do an action may cancel what they asked for themselves. Others, such as operators, need to be granted
	# `<agent>._cancel`, which then is an action of the registry like any other.
	endswith(request.action.name, "._cancel")
	request.action.properties.role == "requester"
	registry := data.sealbus.registry
	user := request.context.user
	registry.agents[request.subject.id].actions[request.action.properties.action] == true
	chain_known(registry.agents, request) == true
	none_revoked(registry.revoked.agents, request.context.chain) == true
	none_revoked(registry.revoked.users, [user.id]) == true
	none_revoked(registry.revoked.sessions, [user.session]) == true
	none_revoked(registry.revoked.clients, [user.client]) == true
	user_known(user, registry.users) == true
} else := {"allow": false, "reasons": words, "obligations": told, "policy": "starter"} if {
	words := reasons(request)
	told := obligations(request, words)
} else := {"allow": false, "reasons": ["incomplete"], "obligations": [], "policy": "starter"}

# Our own users are known. A user of a partner, a client that acts for itself and a workload of others are if the registry
# has their id, with what they are: to be vouched for by their provider is not to be let in here.
user_known(user, users) if {
	user.type == "user"
	user.domain == ""
} else if {
	user.present == false
} else if {
	object.get(users[user.id], "type", "user") == user.type
} else := false

# An owned item is for the user who owns it, and for those who manage the customer that it belongs to. The consuming
# agent loaded both attributes from its own data. An owner is what the registry says that this id is: if it says that it is a
# client, a user of the same id owns nothing.
user_may_reach(action, user, properties, users) if {
	action.resource == "owned"
	action.user == "required"
	user.present == true
	user.id == properties.owner
	user.id != ""
	object.get(object.get(users, user.id, {}), "type", "user") == user.type
} else if {
	action.resource == "owned"
	action.user == "required"
	user.present == true
	object.get(users[user.id], "type", "user") == user.type
	users[user.id].customers[properties.customer] == true
} else if {
	action.resource == "any"
	user_as_needed(action.user, user)
} else := false

user_as_needed(need, user) if {
	need == "required"
	user.present == true
	user.id != ""
} else if {
	need == "none"
} else := false

# A region's offset is fixed, because the engines have time zone tables of different ages, and because a decision that
# is replayed years later must be the same: summer time is a change of data.
# Arrays compare element by element, so that at [18, 0, 0] a region that closes at [18, 0] is closed.
within_hours(need, request, regions) if {
	need == true
	region := regions[request.resource.properties.region]
	local := time.parse_rfc3339_ns(request.context.time) + (region.utc_offset_minutes * 60000000000)
	region.weekdays[time.weekday(local)] == true
	clock := time.clock(local)
	region.open <= clock
	clock < region.close
} else if {
	need == false
} else := false

# Why a request is denied: a stable word for each condition of `decide` that does not hold, in alphabetical order.
# Nothing from here on can allow.
reasons(request) := words if {
	registry := data.sealbus.registry
	revoked := registry.revoked
	user := request.context.user
	action := object.get(registry.actions, request.action.name, undeclared)
	conditions := {
		"action_not_granted": granted(registry.agents, request),
		"not_owner": within_reach(action, user, request.resource.properties, registry.users),
		"outside_business_hours": within_hours(action.hours, request, registry.regions),
		"over_limit": within_limits(action.limits, request.action.properties),
		"revoked_agent": none_revoked(revoked.agents, request.context.chain),
		"revoked_client": none_revoked(revoked.clients, [user.client]),
		"revoked_session": none_revoked(revoked.sessions, [user.session]),
		"revoked_user": none_revoked(revoked.users, [user.id]),
		"unknown_action": known(registry.actions, request.action.name),
		"unknown_agent": known(registry.agents, request.subject.id),
		"unknown_chain_agent": chain_known(registry.agents, request),
		"unknown_user": user_known(user, registry.users),
		"user_required": user_as_needed(action.user, user),
	}
	words := sort([word | some word, holds in conditions; not holds])
}

# An undeclared action violates only `unknown_action` and, mostly, `action_not_granted`: its other needs are unknown.
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

# A missing user who is required has another reason; this one counts only for an owned item, which nobody owns then.
within_reach(action, user, properties, users) if {
	action.resource == "any"
} else := user_may_reach(action, user, properties, users)

within_limits(limits, properties) if {
	every field, limit in limits {
		properties[field] >= 0
		properties[field] <= limit
	}
} else := false

# Reasons tell a caller about users, regions and limits: they are shown to agents that the registry trusts with them,
# unless one of the chain was revoked. If all that is wrong is the session, a new login helps, which the user's identity
# provider must not answer from the old session.
obligations(request, words) := [{"type": "show_reasons"}, {"type": "remedy", "kind": "login", "max_age": 0}] if {
	data.sealbus.registry.agents[request.subject.id].show_reasons == true
	words == ["revoked_session"]
} else := [{"type": "show_reasons"}] if {
	data.sealbus.registry.agents[request.subject.id].show_reasons == true
	not "revoked_agent" in words
} else := []
