# What a policy of one's own adds to the library.
package sealbus.authz_test

import data.sealbus.lib.rules

own_answer(changes, own) := answered(registry, object.union(request, changes), own)

answered(world, asked, own) := found if {
	found := rules.denied("shop", asked, own) with data.sealbus.registry as world
}

orderly(world, asked) := found if {
	found := rules.in_order(asked) with data.sealbus.registry as world
}

only(words) := {"allow": false, "reasons": words, "obligations": [], "policy": "shop"}

test_allowed_names_the_policy if {
	rules.allowed("shop") == {"allow": true, "reasons": [], "obligations": [], "policy": "shop"}
}

showing(caller) := found if {
	asked := object.union(request, {"subject": {"id": caller}})
	world := {"agents": {"trusted": {"show_reasons": true}, "no": {"show_reasons": false}, "odd": {"show_reasons": "true"}}}
	found := rules.allowed_showing("shop", asked) with data.sealbus.registry as world
}

test_reasons_of_others_are_passed_on_to_who_is_trusted_with_reasons if {
	shown := {"allow": true, "reasons": [], "obligations": [{"type": "show_reasons"}], "policy": "shop"}
	showing("trusted") == shown
	every caller in ["no", "odd", "unknown"] {
		showing(caller) == rules.allowed("shop")
	}
	rules.allowed_showing("shop", {}) == rules.allowed("shop")
}

test_in_order_is_true_or_false if {
	orderly(registry, request) == true
	orderly(registry, object.union(request, quantity(101))) == false
	orderly(registry, {}) == false
	orderly({}, request) == false
}

test_own_reasons_stand_among_the_others_in_order if {
	own_answer(quantity(101), {"a_first": false, "z_last": false, "met": true}) == only(["a_first", "over_limit", "z_last"])
	own_answer({}, {"too_much_at_once": false}) == only(["too_much_at_once"])
}

test_nothing_that_own_holds_can_allow if {
	own_answer({}, {}) == only(["incomplete"])
	own_answer({}, {"met": true}) == only(["incomplete"])
	own_answer({}, {"met": 1}) == only(["incomplete"])
	rules.denied("shop", {}, {"own": false}) == only(["incomplete"])
}

# Who may approve what is over the limit was not asked about what the policy itself forbids.
test_own_reason_beside_the_limit_asks_for_no_approval if {
	asked := object.union(request, paying({}))
	[one.type | some one in answered(bank, asked, {}).obligations] == ["approval"]
	answered(bank, asked, {"own": false}) == only(["over_limit", "own"])
}
