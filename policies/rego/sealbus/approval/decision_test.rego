# Who may approve.
package sealbus.approval_test

edge := "spiffe://example.org/edge"

registry := {
	"agents": {edge: {"actions": {}}},
	"users": {
		"mia": {"customers": {"acme": true, "globex": false}},
		"ola": {"customers": {"acme": true}},
		"robot": {"type": "client", "customers": {"acme": true}},
		"kim@partner.example": {"customers": {"acme": true}},
	},
	"revoked": {"agents": {}, "users": {}, "sessions": {}, "clients": {}},
}

# mia approves what ola asked for.
request := {
	"subject": {"type": "workload", "id": edge, "properties": {"trust_domain": "example.org"}},
	"action": {"name": "bank._approve", "properties": {"verdict": "approve", "note": ""}},
	"resource": {"type": "task", "id": "0f", "properties": {}},
	"context": {
		"user": {
			"present": true,
			"id": "mia",
			"idp": "https://idp.example.org",
			"session": "s-2",
			"client": "desk",
			"type": "user",
			"domain": "",
		},
		"chain": [edge],
	},
	"of": {
		"action": {"name": "bank.pay", "properties": {"amount": 250}},
		"resource": {"type": "invoice", "id": "i-7", "properties": {"owner": "ola", "customer": "acme"}},
		"context": {"user": {"present": true, "id": "ola", "idp": "https://idp.example.org"}},
	},
	"obligation": {"type": "approval", "queue": "managers", "text": "Pay", "until": 3600},
}

answer(changes) := answer_in(registry, changes)

answer_in(world, changes) := decided(world, object.union(request, changes))

decided(world, asked) := found if {
	found := data.sealbus.approval.decide(asked) with data.sealbus.registry as world
}

allowed := {"allow": true, "reasons": [], "obligations": [], "policy": "starter"}

denied(words) := {"allow": false, "reasons": words, "obligations": [], "policy": "starter"}

revoking(kind, id) := object.union(registry, {"revoked": {kind: {id: true}}})

by(user) := {"context": {"user": user}}

test_decision_is_about_the_input if {
	found := data.sealbus.approval.decision with input as request with data.sealbus.registry as registry
	found == allowed
}

test_manager_of_the_customer_may_see_approve_deny_and_withdraw if {
	every verdict in ["view", "approve", "deny", "withdraw"] {
		answer({"action": {"properties": {"verdict": verdict}}}) == allowed
	}
}

test_no_other_verdict_is_one if {
	every verdict in ["", "Approve", "approve ", "run"] {
		answer({"action": {"properties": {"verdict": verdict}}}) == denied(["unknown_verdict"])
	}
	answer({"action": {"properties": {"verdict": true}}}) == denied(["unknown_verdict"])
}

of_customer(customer) := {"of": {"resource": {"properties": {"customer": customer}}}}

test_nobody_else_may if {
	answer(by({"id": "eve"})) == denied(["not_manager"])
	answer(of_customer("initech")) == denied(["not_manager"])
	answer(of_customer("globex")) == denied(["not_manager"])
	answer(of_customer("")) == denied(["not_manager"])
}

test_what_the_verdict_is_about_says_whose_the_item_is if {
	own := {"resource": {"properties": {"customer": "acme"}}}
	answer(object.union(own, of_customer("initech"))) == denied(["not_manager"])
}

test_nobody_approves_what_they_asked_for if {
	answer(by({"id": "ola"})) == denied(["own_request"])
	answer(by({"id": "ola", "idp": "https://other.example"})) == denied(["own_request"])
}

test_who_is_no_person_of_ours_may_not if {
	answer(by({"id": "robot"})) == denied(["unknown_user"])
	answer(by({"id": "robot", "type": "client"})) == denied(["unknown_user"])
	answer(by({"type": "client"})) == denied(["unknown_user"])
	answer(by({"type": ""})) == denied(["unknown_user"])
	answer(by({"present": false})) == denied(["unknown_user"])
	answer(by({"id": "kim@partner.example", "domain": "partner.example"})) == denied(["unknown_user"])
	nameless := object.union(registry, {"users": {"": {"customers": {"acme": true}}}})
	answer_in(nameless, by({"id": ""})) == denied(["unknown_user"])
}

test_who_is_revoked_may_not if {
	answer_in(revoking("users", "mia"), {}) == denied(["revoked_user"])
	answer_in(revoking("sessions", "s-2"), {}) == denied(["revoked_session"])
	answer_in(revoking("clients", "desk"), {}) == denied(["revoked_client"])
	answer_in(revoking("agents", edge), {}) == denied(["revoked_agent"])
}

test_revocation_that_is_false_is_none if {
	world := object.union(registry, {"revoked": {"users": {"mia": false}, "agents": {edge: false}}})
	answer_in(world, {}) == allowed
}

test_who_brings_the_verdict_is_known if {
	stranger := "spiffe://example.org/agent/stranger"
	answer({"subject": {"id": stranger}}) == denied(["unknown_agent"])
	answer({"subject": {"id": stranger}, "context": {"chain": [stranger]}}) == denied(["unknown_agent"])
	answer({"context": {"chain": [stranger, edge]}}) == denied(["unknown_agent"])
	answer({"context": {"chain": []}}) == denied(["unknown_agent"])
}

test_every_broken_condition_is_named_in_order if {
	changes := {"subject": {"id": "x"}, "action": {"properties": {"verdict": ""}}, "context": {"user": {
		"id": "ola",
		"type": "client",
	}}}
	world := object.union(registry, {
		"users": {"ola": {"customers": {"acme": false}}},
		"revoked": {
			"agents": {edge: true},
			"users": {"ola": true},
			"sessions": {"s-2": true},
			"clients": {"desk": true},
		},
	})
	answer_in(world, changes) == denied([
		"not_manager",
		"own_request",
		"revoked_agent",
		"revoked_client",
		"revoked_session",
		"revoked_user",
		"unknown_agent",
		"unknown_user",
		"unknown_verdict",
	])
}

test_question_that_lacks_a_part if {
	decided(registry, object.remove(request, ["subject"])) == denied(["unknown_agent"])
	every part in ["action", "context", "of"] {
		decided(registry, object.remove(request, [part])) == denied(["incomplete"])
	}
	decided(registry, null) == denied(["incomplete"])
	decided(registry, "question") == denied(["incomplete"])
	answer({"of": {"context": {"user": null}}}) == denied(["own_request"])
	decided(object.remove(registry, ["revoked"]), request) == denied(["incomplete"])
}

own_answer(changes, own) := found if {
	asked := object.union(request, changes)
	found := data.sealbus.lib.approvals.decided("shop", asked, own) with data.sealbus.registry as registry
}

test_own_conditions_stand_beside_the_others if {
	own_answer({}, {"late": true}) == object.union(allowed, {"policy": "shop"})
	own_answer({}, {"late": false}) == object.union(denied(["late"]), {"policy": "shop"})
	own_answer(by({"id": "max"}), {"late": false}) == object.union(denied(["late", "not_manager"]), {"policy": "shop"})
	own_answer({"action": {"properties": {"verdict": "run"}}}, {}) == object.union(denied(["unknown_verdict"]), {"policy": "shop"})
}
