# The platform denies revoked workloads anywhere in the chain, and, by being undefined, incomplete requests.
package sealbus.platform.denials_test

import data.sealbus.platform

shop := "spiffe://example.org/agent/shop-web"

planner := "spiffe://example.org/agent/planner"

request := {"context": {"chain": [shop, planner], "user": {"id": "eve", "session": "s-1", "client": "web"}}}

nobody := {"agents": {}, "users": {}, "sessions": {}, "clients": {}}

with_revoked(kind, id) := object.union(nobody, {kind: {id: {"at": "2026-11-24T00:00:00Z"}}})

test_nobody if {
	found := platform.denials(request) with data.sealbus.registry.revoked as nobody
	found == []
}

test_each_kind_by_its_word if {
	words := {"agents": "revoked_agent", "users": "revoked_user", "sessions": "revoked_session", "clients": "revoked_client"}
	ids := {"agents": shop, "users": "eve", "sessions": "s-1", "clients": "web"}
	every kind, word in words {
		revoked := with_revoked(kind, ids[kind])
		found := platform.denials(request) with data.sealbus.registry.revoked as revoked
		found == [word]
	}
}

test_false_is_not_revoked if {
	revoked := object.union(nobody, {"users": {"eve": false}})
	found := platform.denials(request) with data.sealbus.registry.revoked as revoked
	found == []
}

test_what_is_incomplete_is_undefined if {
	every one in [{}, {"context": {}}, {"context": {"user": {"id": "eve"}}}] {
		not platform.denials(one)
	}
}
