# Who may cancel what was asked for.
package sealbus.authz_test

cancel := {
	"action": {"name": "stock._cancel", "properties": {"action": "stock.update", "role": "requester", "reason": ""}},
	"resource": {"type": "task", "id": "0f", "properties": {}},
}

cancelling(changes) := object.union(cancel, {"action": {"properties": changes}})

refused_cancel := ["action_not_granted", "unknown_action"]

test_who_may_ask_may_cancel if {
	answer(cancel) == allowed
}

test_no_user_is_needed_to_cancel if {
	answer(object.union(cancel, by(no_user))) == allowed
}

test_cancel_of_what_is_not_granted if {
	why(cancelling({"action": "stock.sweep"})) == refused_cancel
	why(cancelling({"action": "stock.taken_back"})) == refused_cancel
}

test_cancel_of_no_action if {
	why(cancelling({"action": ""})) == refused_cancel
}

test_operator_needs_a_grant_to_cancel if {
	why(cancelling({"role": "operator"})) == refused_cancel
	world := object.union(registry, {
		"agents": {shop: {"actions": {"stock._cancel": true}}},
		"actions": {"stock._cancel": {"user": "none", "resource": "any", "limits": {}, "hours": false}},
	})
	answer_in(world, cancelling({"role": "operator", "action": "stock.sweep"})) == allowed
}

test_other_actions_are_no_cancels if {
	named := object.union(cancel, {"action": {"name": "stock.cancel"}})
	why(named) == refused_cancel
}

test_caller_outside_the_chain_cancels_nothing if {
	why(object.union(cancel, {"context": {"chain": [edge]}})) == array.concat(refused_cancel, ["unknown_chain_agent"])
}

test_revoked_callers_cancel_nothing if {
	why_in(revoking("agents", shop), cancel) == ["action_not_granted", "revoked_agent", "unknown_action"]
	why_in(revoking("agents", edge), cancel) == ["action_not_granted", "revoked_agent", "unknown_action"]
}

test_revoked_users_cancel_nothing if {
	why_in(revoking("users", "ola"), cancel) == ["action_not_granted", "revoked_user", "unknown_action"]
	why_in(revoking("sessions", "s-1"), cancel) == ["action_not_granted", "revoked_session", "unknown_action"]
	why_in(revoking("clients", "web"), cancel) == ["action_not_granted", "revoked_client", "unknown_action"]
}
