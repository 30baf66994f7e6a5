# The world of the tests: their own registry, so that they test the rules whatever the real one holds, and a request
# that is allowed in it, which each test changes in one place.
package sealbus.authz_test

shop := "spiffe://example.org/agent/shop"

stock := "spiffe://example.org/agent/stock"

edge := "spiffe://example.org/edge"

no_one_revoked := {"agents": {}, "users": {}, "sessions": {}, "clients": {}}

registry := {
	"agents": {
		edge: {"actions": {}},
		shop: {"actions": {"stock.update": true, "stock.look": true, "stock.count": true, "stock.taken_back": false}},
		stock: {"actions": {"stock.update.reply": true}, "show_reasons": true},
	},
	"actions": {
		"stock.update": {"user": "required", "resource": "owned", "limits": {"quantity": 100}, "hours": true},
		"stock.update.reply": {"user": "none", "resource": "any", "limits": {}, "hours": false},
		"stock.look": {"user": "none", "resource": "any", "limits": {}, "hours": false},
		"stock.count": {"user": "none", "resource": "any", "limits": {"rows": 10, "pages": 2}, "hours": false},
		"stock.taken_back": {"user": "none", "resource": "any", "limits": {}, "hours": false},
		"stock.sweep": {"user": "none", "resource": "any", "limits": {}, "hours": false},
	},
	"users": {"mia": {"customers": {"acme": true, "globex": false}}},
	"regions": {
		"north": {"utc_offset_minutes": 60, "open": [8, 0], "close": [18, 30], "weekdays": {"Tuesday": true}},
		"west": {"utc_offset_minutes": -480, "open": [9, 0], "close": [17, 0], "weekdays": {"Monday": true}},
		"east": {"utc_offset_minutes": 570, "open": [9, 0], "close": [17, 0], "weekdays": {"Wednesday": true}},
	},
	"revoked": no_one_revoked,
}

# A Tuesday, 13:00 in region north; ola owns the item, which belongs to acme.
request := {
	"v": 1,
	"subject": {"type": "workload", "id": shop, "properties": {"trust_domain": "example.org"}},
	"action": {"name": "stock.update", "properties": {"quantity": 3}},
	"resource": {"type": "item", "id": "42", "properties": {"owner": "ola", "customer": "acme", "region": "north"}},
	"context": {
		"time": "2026-11-24T12:00:00Z",
		"subject": "task.stock.update",
		"kind": "task",
		"message_id": "0193",
		"tenant": "acme",
		"delivery": 1,
		"user": {
			"present": true,
			"id": "ola",
			"idp": "https://idp.example.org",
			"session": "s-1",
			"txn": "t-1",
			"client": "web",
			"scope": [],
			"claims": {},
			"acr": "",
			"auth_time": 0,
			"type": "user",
			"domain": "",
		},
		"chain": [edge, shop],
		"grant": {"limited": false, "actions": []},
		"approvals": [],
		"parked": {"since": "", "revision": ""},
	},
}

allowed := {"allow": true, "reasons": [], "obligations": [], "policy": "starter"}

# The policy's answer to the request with `changes` applied.
answer(changes) := answer_in(registry, changes)

answer_in(world, changes) := decided(world, object.union(request, changes))

decided(world, asked) := found if {
	found := data.sealbus.authz.decide(asked) with data.sealbus.registry as world
}

# The reasons of a denial; undefined for an allowed request.
why(changes) := why_in(registry, changes)

why_in(world, changes) := found.reasons if {
	found := answer_in(world, changes)
	found.allow == false
}

by(user) := {"context": {"user": user}}

no_user := {"present": false, "id": "", "idp": "", "session": "", "client": "", "type": ""}

action(name) := {"action": {"name": name}}
