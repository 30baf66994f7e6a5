# METADATA
# title: Who may approve
# description: |
#   Decides one verdict of a person on a message that waits (`approve`, `deny` or `withdraw`), and whether they may see it
#   at all (`view`). The question is the usual document about the verdict; beside it, `of` is the one about the message, and
#   `obligation` what the denial asks for. A manager of the customer that the item belongs to may, and never the requester.
package sealbus.approval

# METADATA
# entrypoint: true
decision := decide(input)

decide(request) := {"allow": true, "reasons": [], "obligations": [], "policy": "starter"} if {
	reasons(request) == []
} else := {"allow": false, "reasons": words, "obligations": [], "policy": "starter"} if {
	words := reasons(request)
} else := {"allow": false, "reasons": ["incomplete"], "obligations": [], "policy": "starter"}

# A stable word for each condition that does not hold, in alphabetical order.
reasons(request) := words if {
	registry := data.sealbus.registry
	revoked := registry.revoked
	user := request.context.user
	conditions := {
		"not_manager": manages(registry.users, user.id, request.of.resource.properties),
		"own_request": another(user, request.of.context.user),
		"revoked_agent": none_revoked(revoked.agents, request.context.chain),
		"revoked_client": none_revoked(revoked.clients, [user.client]),
		"revoked_session": none_revoked(revoked.sessions, [user.session]),
		"revoked_user": none_revoked(revoked.users, [user.id]),
		"unknown_agent": agents_known(registry.agents, request),
		"unknown_user": is_person(user, registry.users),
		"unknown_verdict": is_verdict(request.action.properties.verdict),
	}
	words := sort([word | some word, holds in conditions; not holds])
}

manages(users, id, properties) if {
	users[id].customers[properties.customer] == true
} else := false

# Ids are taken as they are, here as everywhere: the same id from another provider is the same person.
another(user, requester) if {
	user.id != requester.id
} else := false

none_revoked(revoked, ids) if {
	every id in ids {
		object.get(revoked, id, false) == false
	}
} else := false

agents_known(agents, request) if {
	request.subject.id in request.context.chain
	every hop in request.context.chain {
		agents[hop]
	}
} else := false

# One of our own people: no client, no workload, nobody of a partner.
is_person(user, users) if {
	user.present == true
	user.id != ""
	user.type == "user"
	user.domain == ""
	object.get(object.get(users, user.id, {}), "type", "user") == "user"
} else := false

is_verdict(verdict) if {
	verdict in {"view", "approve", "deny", "withdraw"}
} else := false
