package sealbus.authz_test

caller := "spiffe://example.org/agent/demo"

# Alice changes an order of hers to 3.
request := {
	"v": 1,
	"subject": {"type": "workload", "id": caller, "properties": {"trust_domain": "example.org"}},
	"action": {"name": "orders.change", "properties": {"quantity": 3}},
	"resource": {"type": "order", "id": "1", "properties": {"owner": "alice"}},
	"context": {
		"time": "2026-11-24T12:00:00Z",
		"user": {"present": true, "id": "alice", "session": "s-1", "client": "dev", "type": "user", "domain": ""},
		"chain": [caller],
		"approvals": [],
	},
}

answer(changes) := found if {
	asked := object.union(request, changes)
	found := data.sealbus.authz.decision with input as asked
}

test_an_owner_may if {
	answer({}).allow == true
}

test_nobody_else_may if {
	answer({"context": {"user": {"id": "bob"}}}).reasons == ["not_owner"]
}

test_nobody_may_too_much if {
	answer({"action": {"properties": {"quantity": 101}}}).reasons == ["too_much_at_once"]
}
