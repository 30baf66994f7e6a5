package sealbus.authz_test

import data.sealbus.authz

web := "spiffe://example.org/agent/web"

# Alice changes an order of hers to 3.
request := {
	"v": 1,
	"subject": {"type": "workload", "id": web, "properties": {"trust_domain": "example.org"}},
	"action": {"name": "demo.change", "properties": {"quantity": 3}},
	"resource": {"type": "order", "id": "1", "properties": {"owner": "alice"}},
	"context": {
		"time": "2026-11-24T12:00:00Z",
		"chain": [web],
		"approvals": [],
		"user": {"present": true, "type": "user", "domain": "", "id": "alice", "session": "", "client": "dev"},
	},
}

test_an_owner_changes_an_order if {
	authz.decision.allow == true with input as request
}

test_not_to_too_much if {
	much := object.union(request, {"action": {"name": "demo.change", "properties": {"quantity": 101}}})
	authz.decision.reasons == ["too_much_at_once"] with input as much
}

test_not_another_ones if {
	other := object.union(request, {"resource": {"properties": {"owner": "bob"}}})
	authz.decision.reasons == ["not_owner"] with input as other
}
