# METADATA
# title: The rules of the starter policy, for policies of one's own
# description: |
#   A policy asks `in_order`, adds what is special about it, and answers with `allowed` or `denied`. Anything missing,
#   unknown or of a wrong type denies. `data.sealbus.registry` says who may do what.
#
#     decide(request) := rules.allowed("shop") if {
#       rules.in_order(request) == true
#       small_enough(request) == true
#     } else := rules.denied("shop", request, {"too_much_at_once": small_enough(request)})
package sealbus.lib.rules

# The answer of the policy `name` that allows.
allowed(name) := {"allow": true, "reasons": [], "obligations": [], "policy": name}

# The same, for an agent that asks others in its turn: if one of these denies, its reasons are passed on to the caller, if the
# registry trusts it with reasons (`show_reasons`).
allowed_showing(name, request) := {"allow": true, "reasons": [], "obligations": trusted(request), "policy": name}

trusted(request) := [{"type": "show_reasons"} | data.sealbus.registry.agents[request.subject.id].show_reasons == true]

# The answer of the policy `name` that denies, with a word for each condition that does not hold: those of `in_order`, and
# those of `own`, an object from words to whether their conditions hold. Its last branch is for a request, or a registry,
# that lacks even what the reasons need.
denied(name, request, own) := {"allow": false, "reasons": words, "obligations": told, "policy": name} if {
	words := sort(array.concat(reasons(request), [word | some word, met in own; not met]))
	count(words) > 0
	told := obligations(request, words)
} else := {"allow": false, "reasons": ["incomplete"], "obligations": [], "policy": name}

# Whether the registry lets this caller do this for this user to this item: true or false, never undefined.
#
# Written for speed, because it runs for every message: the conditions are written out in full, the registry is looked up
# once, calls are compared with true and all of it is one file, each of which saves the embedded engine a microsecond or
# more of forty. OPA must be started with --optimize-store-for-read-speed; without it, looking up the registry converts
# the whole registry at each question.
# Every condition has its word in `reasons`.
in_order(request) if {
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
} else if {
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
} else if {
	# What is over the limits alone, and within those that hold with an approval, may be done once somebody approved it.
	registry := data.sealbus.registry
	approved(request, registry) == true
	approvable(registry.actions[request.action.name], request) == true
	reasons(request) == ["over_limit"]
} else := false

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

# Why a request is denied: a stable word for each condition of `in_order` that does not hold, in alphabetical order.
# Nothing from here on can allow, but that these words are all that an approval may set aside.
reasons(request) := words if {
	registry := data.sealbus.registry
	revoked := registry.revoked
	user := request.context.user
	action := object.get(registry.actions, request.action.name, undeclared)
	conditions := {
		"action_not_granted": granted(registry.agents, request),
		"not_approved": none_denied(request.context.approvals),
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
	words := sort([word | some word, met in conditions; not met])
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

# Somebody denied what was to be approved: that stays so, whatever others say.
none_denied(approvals) if {
	every given in approvals {
		given.verdict == "approve"
	}
} else := false

# An approval can help if the action declares one, and its limits hold in place of those that they are for.
approvable(action, request) if {
	request.context.user.present == true
	every field, limit in object.union(action.limits, action.approval.over) {
		request.action.properties[field] >= 0
		request.action.properties[field] <= limit
	}
} else := false

# Somebody else approved, and is today still one who may: `sealbus.approval` has asked the same of them then.
approved(request, registry) if {
	some given in request.context.approvals
	given.verdict == "approve"
	given.user != request.context.user.id
	given.user != ""
	object.get(registry.users[given.user], "type", "user") == "user"
	registry.users[given.user].customers[request.resource.properties.customer] == true
	none_revoked(registry.revoked.users, [given.user]) == true
	none_revoked(registry.revoked.sessions, [given.session]) == true
	none_revoked(registry.revoked.clients, [given.client]) == true
} else := false

# Reasons tell a caller about users, regions and limits: they are shown to agents that the registry trusts with them,
# unless one of the chain was revoked. If all that is wrong is the session, a new login helps, which the user's identity
# provider must not answer from the old session.
obligations(request, words) := array.concat(shown(request, words), asked(request, words))

shown(request, words) := [{"type": "show_reasons"}, {"type": "remedy", "kind": "login", "max_age": 0}] if {
	data.sealbus.registry.agents[request.subject.id].show_reasons == true
	words == ["revoked_session"]
} else := [{"type": "show_reasons"}] if {
	data.sealbus.registry.agents[request.subject.id].show_reasons == true
	not "revoked_agent" in words
} else := []

# If all that is wrong is the limit, and an approval could set it aside, one is asked for, as the action declares it. People
# are asked in words that are made of nothing but verified facts; where these do not make a short plain line, nobody is.
asked(request, words) := [wanted] if {
	words == ["over_limit"]
	action := data.sealbus.registry.actions[request.action.name]
	approvable(action, request) == true
	text := question(action, request)
	regex.match("^[0-9A-Za-z._@:/+=|, -]{1,256}$", text)
	wanted := object.union(object.remove(action.approval, ["over"]), {"type": "approval", "text": text})
} else := []

# Who chooses an id must not choose what people read: it has no spaces or commas, and no colon at its end.
question(action, request) := text if {
	user := request.context.user
	resource := request.resource
	every name in [request.action.name, resource.type, resource.id, user.id] {
		regex.match("^[0-9A-Za-z]([0-9A-Za-z._@:/+=|-]*[0-9A-Za-z=])?$", name)
	}
	amounts := sort([amount |
		some field, _ in action.approval.over
		value := request.action.properties[field]
		is_number(value)
		amount := sprintf("%v %v", [field, value])
	])
	said := concat(", ", amounts)
	text := sprintf("%v: %v, %v %v, for %v", [request.action.name, said, resource.type, resource.id, user.id])
} else := ""
