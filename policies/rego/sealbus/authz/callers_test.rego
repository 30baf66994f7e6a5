# The caller: its grant, its chain, and revocations.
package sealbus.authz_test

test_granted_action_is_allowed if {
	answer({}) == allowed
}

test_grant_is_needed if {
	why(action("stock.sweep")) == ["action_not_granted"]
}

test_grant_that_is_false_is_none if {
	why(action("stock.taken_back")) == ["action_not_granted"]
}

test_grant_of_another_agent_does_not_help if {
	why({"subject": {"id": stock}, "context": {"chain": [edge, stock]}}) == ["action_not_granted"]
}

test_grant_of_an_action_is_not_one_of_its_reply if {
	why(action("stock.update.reply")) == ["action_not_granted"]
}

test_reply_is_decided_by_its_own_grant if {
	reply := {"subject": {"id": stock}, "action": {"name": "stock.update.reply"}, "context": {"chain": [stock]}}
	answer(reply) == allowed
}

test_action_that_is_not_declared if {
	why(action("stock.burn")) == ["action_not_granted", "unknown_action"]
}

test_grant_of_what_is_not_declared_allows_nothing if {
	world := object.union(registry, {"agents": {shop: {"actions": {"stock.burn": true}}}})
	why_in(world, action("stock.burn")) == ["unknown_action"]
}

test_unknown_caller if {
	stranger := "spiffe://example.org/agent/stranger"
	found := why({"subject": {"id": stranger}, "context": {"chain": [edge, stranger]}})
	found == ["action_not_granted", "unknown_agent", "unknown_chain_agent"]
}

test_caller_is_known_by_its_whole_id if {
	foreign := "spiffe://example.com/agent/shop"
	found := why({"subject": {"id": foreign}, "context": {"chain": [edge, foreign]}})
	found == ["action_not_granted", "unknown_agent", "unknown_chain_agent"]
}

test_chain_of_known_agents_is_allowed if {
	answer({"context": {"chain": [edge, stock, shop, stock, shop]}}) == allowed
}

test_chain_of_the_caller_alone_is_allowed if {
	answer({"context": {"chain": [shop]}}) == allowed
}

test_unknown_first_of_the_chain if {
	why({"context": {"chain": ["spiffe://example.org/agent/stranger", shop]}}) == ["unknown_chain_agent"]
}

test_unknown_in_the_middle_of_the_chain if {
	why({"context": {"chain": [edge, "spiffe://example.org/agent/stranger", shop]}}) == ["unknown_chain_agent"]
}

test_chain_without_the_caller if {
	why({"context": {"chain": [edge]}}) == ["unknown_chain_agent"]
}

test_empty_chain if {
	why({"context": {"chain": []}}) == ["unknown_chain_agent"]
}

revoking(kind, id) := object.union(registry, {"revoked": {kind: {id: true}}})

test_revoked_caller if {
	why_in(revoking("agents", shop), {}) == ["revoked_agent"]
}

test_revoked_agent_earlier_in_the_chain if {
	why_in(revoking("agents", edge), {}) == ["revoked_agent"]
}

test_revoked_agent_that_has_no_part_in_it if {
	answer_in(revoking("agents", stock), {}) == allowed
}

test_revoked_user if {
	why_in(revoking("users", "ola"), {}) == ["revoked_user"]
}

test_revoked_user_is_not_served_where_none_is_needed if {
	why_in(revoking("users", "ola"), action("stock.look")) == ["revoked_user"]
}

test_other_user_revoked if {
	answer_in(revoking("users", "mia"), {}) == allowed
}

test_revoked_session if {
	why_in(revoking("sessions", "s-1"), {}) == ["revoked_session"]
}

test_other_session_revoked if {
	answer_in(revoking("sessions", "s-2"), {}) == allowed
}

test_revoked_client if {
	why_in(revoking("clients", "web"), {}) == ["revoked_client"]
}

test_other_client_revoked if {
	answer_in(revoking("clients", "app"), {}) == allowed
}

test_revocation_says_anything_but_false if {
	world := object.union(registry, {"revoked": {"sessions": {"s-1": {"since": "2026-11-24T11:00:00Z"}}}})
	why_in(world, {}) == ["revoked_session"]
}

test_revocation_taken_back if {
	world := object.union(registry, {"revoked": {"sessions": {"s-1": false}}})
	answer_in(world, {}) == allowed
}
