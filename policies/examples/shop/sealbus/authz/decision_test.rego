package sealbus.authz_test

edge := "spiffe://example.org/edge"

# alice changes an item of her own, through the edge.
request := {
	"v": 1,
	"subject": {"type": "workload", "id": edge, "properties": {"trust_domain": "example.org"}},
	"action": {"name": "inventory.update", "properties": {"quantity": 3}},
	"resource": {"type": "item", "id": "42", "properties": {"owner": "alice", "customer": "acme", "region": "always"}},
	"context": {
		"time": "2026-11-24T12:00:00Z",
		"user": {"present": true, "id": "alice", "session": "s-1", "client": "web", "type": "user", "domain": ""},
		"chain": [edge],
		"approvals": [],
	},
}

answer(changes) := found if {
	asked := object.union(request, changes)
	found := data.sealbus.authz.decision with input as asked
}

quantity(number) := {"action": {"properties": {"quantity": number}}}

test_the_owner_may if {
	answer({}) == {"allow": true, "reasons": [], "obligations": [], "policy": "shop"}
}

test_nobody_else_may if {
	answer({"context": {"user": {"id": "dave"}}}).reasons == ["not_owner"]
}

test_too_much_at_once if {
	answer(quantity(50)).allow == true
	answer(quantity(51)).reasons == ["too_much_at_once"]
	answer(quantity(101)).reasons == ["over_limit", "too_much_at_once"]
}

test_what_is_no_request_is_denied if {
	data.sealbus.authz.decision.reasons == ["incomplete"] with input as {}
}
