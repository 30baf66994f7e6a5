# The answer: its shape, its reasons and obligations, and that there is always one.
package sealbus.authz_test

test_decision_is_about_the_input if {
	found := data.sealbus.authz.decision with input as request with data.sealbus.registry as registry
	found == allowed
}

test_batch_keeps_order_and_leaves_nothing_out if {
	asked := [request, {}, object.union(request, quantity(101)), request]
	found := data.sealbus.authz.batch with input as {"batch": asked} with data.sealbus.registry as registry
	[one.reasons | some one in found] == [[], ["incomplete"], ["over_limit"], []]
	[one.allow | some one in found] == [true, false, false, true]
}

test_empty_batch if {
	found := data.sealbus.authz.batch with input as {"batch": []}
	found == []
}

test_denial_has_every_key if {
	answer(quantity(101)) == {"allow": false, "reasons": ["over_limit"], "obligations": [], "policy": "starter"}
}

test_every_broken_condition_is_named_in_order if {
	world := object.union(registry, {"revoked": {
		"agents": {edge: true},
		"users": {"eve": true},
		"sessions": {"s-1": true},
		"clients": {"web": true},
	}})
	changes := {
		"action": {"properties": {"quantity": 101}},
		"context": {"time": "2026-11-22T02:00:00Z", "user": {"id": "eve"}, "chain": [edge, "spiffe://other/x", shop]},
	}
	why_in(world, changes) == [
		"not_owner",
		"outside_business_hours",
		"over_limit",
		"revoked_agent",
		"revoked_client",
		"revoked_session",
		"revoked_user",
		"unknown_chain_agent",
	]
}

incomplete := {"allow": false, "reasons": ["incomplete"], "obligations": [], "policy": "starter"}

test_request_that_is_no_request if {
	decided(registry, null) == incomplete
	decided(registry, "request") == incomplete
	decided(registry, []) == incomplete
}

test_request_without_a_subject if {
	decided(registry, object.remove(request, ["subject"])) == incomplete
}

test_request_without_an_action if {
	decided(registry, object.remove(request, ["action"])) == incomplete
}

test_request_without_a_context if {
	decided(registry, object.remove(request, ["context"])) == incomplete
}

test_request_without_a_user if {
	bare := object.union(request, {"context": {"user": null}})
	decided(registry, bare) == incomplete
}

test_registry_that_is_not_there if {
	decided({}, request) == incomplete
}

test_registry_without_revocations if {
	decided(object.remove(registry, ["revoked"]), request) == incomplete
}

test_registry_without_one_kind_of_revocation if {
	world := object.remove(registry, ["revoked"])
	half := {"agents": {}, "users": {}, "sessions": {}}
	found := decided(object.union(world, {"revoked": half}), request)
	found.allow == false
}

test_action_that_does_not_say_what_it_needs if {
	bare := object.remove(registry, ["actions"])
	decided(object.union(bare, {"actions": {"stock.update": {}}}), request) == incomplete
}

from_stock := {"subject": {"id": stock}, "context": {"chain": [edge, stock]}}

test_reasons_are_shown_to_whom_the_registry_trusts_with_them if {
	found := answer(from_stock)
	found.obligations == [{"type": "show_reasons"}]
}

test_reasons_are_shown_to_nobody_else if {
	found := answer(quantity(101))
	found.obligations == []
}

test_reasons_are_not_shown_along_a_revoked_chain if {
	found := answer_in(revoking("agents", edge), from_stock)
	found.allow == false
	found.obligations == []
}

test_reasons_are_not_shown_to_the_unknown if {
	found := answer({"subject": {"id": "spiffe://example.org/agent/stranger"}})
	found.obligations == []
}

# What stock may ask for on behalf of a user whose session was revoked.
with_revoked_session := object.union(registry, {
	"agents": {stock: {"actions": {"stock.look": true}, "show_reasons": true}},
	"revoked": {"sessions": {"s-1": true}},
})

look_from_stock := object.union(from_stock, action("stock.look"))

test_new_login_helps_where_the_session_was_revoked if {
	found := answer_in(with_revoked_session, look_from_stock)
	found.reasons == ["revoked_session"]
	found.obligations == [{"type": "show_reasons"}, {"type": "remedy", "kind": "login", "max_age": 0}]
}

test_new_login_does_not_help_where_more_is_wrong if {
	found := answer_in(object.union(with_revoked_session, {"revoked": {"users": {"ola": true}}}), look_from_stock)
	found.reasons == ["revoked_session", "revoked_user"]
	found.obligations == [{"type": "show_reasons"}]
}

test_nobody_else_is_told_that_a_login_helps if {
	found := answer_in(revoking("sessions", "s-1"), {})
	found.reasons == ["revoked_session"]
	found.obligations == []
}
