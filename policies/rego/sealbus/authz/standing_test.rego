# What users have an edge do later, in their name.
package sealbus.authz_test

standing := object.union(by_edge, {
	"action": {
		"name": "edge._schedule",
		"properties": {"name": "0f-often", "state": "on", "action": "stock.look", "when": "every 60 s", "overlap": "skip"},
	},
	"resource": {"type": "schedule", "id": "0f-often", "properties": {"state": "", "action": "", "by": ""}},
})

by_edge := {"subject": {"id": edge}, "context": {"chain": [edge]}}

standing_world := object.union(registry, {
	"agents": {edge: {"actions": {"edge._schedule": true}}},
	"actions": {"edge._schedule": {"user": "required", "resource": "any", "limits": {}, "hours": false}},
})

test_users_grant_nothing_unless_the_registry_says_so if {
	why(standing) == ["action_not_granted", "unknown_action"]
	why_in(object.union(standing_world, {"agents": {edge: {"actions": {"edge._schedule": false}}}}), standing) == [
		"action_not_granted",
	]
}

test_users_grant_where_the_registry_says_so if {
	answer_in(standing_world, standing) == allowed
	answer_in(standing_world, object.union(standing, {"action": {"properties": {"state": "tick"}}})) == allowed
}

test_nobody_grants_without_a_user if {
	why_in(standing_world, object.union(standing, by(no_user))) == ["user_required"]
}

test_nothing_is_done_for_who_is_revoked if {
	world := object.union(standing_world, {"revoked": {"sessions": {"s-1": true}}})
	why_in(world, standing) == ["revoked_session"]
}
