# What is over the limits, and may be done once somebody else has approved it.
package sealbus.authz_test

approval := {"over": {"amount": 500}, "queue": "managers", "until": 3600, "acr": ["mfa"], "max_age": 300}

bank := object.union(registry, {
	"agents": {shop: {"actions": {"bank.pay": true}}, stock: {"actions": {"bank.pay": true}}},
	"actions": {"bank.pay": {
		"user": "required",
		"resource": "owned",
		"limits": {"amount": 100, "pages": 2},
		"hours": false,
		"approval": approval,
	}},
	"users": {"max": {"customers": {"acme": true}}, "robot": {"type": "client", "customers": {"acme": true}}},
})

pay := {
	"action": {"name": "bank.pay", "properties": {"amount": 250, "pages": 1}},
	"resource": {"type": "invoice", "id": "i-7"},
}

paying(changes) := object.union(pay, changes)

wanted := {
	"type": "approval",
	"queue": "managers",
	"until": 3600,
	"acr": ["mfa"],
	"max_age": 300,
	"text": "bank.pay: amount 250, invoice i-7, for ola",
}

given := {
	"verdict": "approve",
	"user": "mia",
	"idp": "https://idp.example.org",
	"session": "s-2",
	"client": "desk",
	"acr": "mfa",
	"auth_time": 0,
	"time": "2026-11-24T12:30:00Z",
	"message": "01",
	"record": "02",
}

# The payment with these approvals, each `given` with changes.
with_approvals(changed) := paying({"context": {"approvals": [object.union(given, one) | some one in changed]}})

# What a denial asks for.
asks(world, changes) := found.obligations if {
	found := answer_in(world, changes)
	found.allow == false
}

test_what_is_within_the_limits_needs_no_approval if {
	answer_in(bank, paying({"action": {"properties": {"amount": 100}}})) == allowed
}

test_what_is_over_the_limits_asks_for_an_approval if {
	answer_in(bank, pay) == {
		"allow": false,
		"reasons": ["over_limit"],
		"obligations": [wanted],
		"policy": "starter",
	}
}

test_reasons_are_told_as_ever_beside_it if {
	asks(bank, object.union(pay, from_stock)) == [{"type": "show_reasons"}, wanted]
}

test_approval_has_limits_of_its_own if {
	asks(bank, paying({"action": {"properties": {"amount": 500}}})) != []
	asks(bank, paying({"action": {"properties": {"amount": 501}}})) == []
	asks(bank, paying({"action": {"properties": {"amount": -1}}})) == []
	asks(bank, paying({"action": {"properties": {"amount": "250"}}})) == []
	asks(bank, paying({"action": {"properties": {"amount": ["250"]}}})) == []
	asks(bank, paying({"action": {"properties": {"amount": true}}})) == []
}

test_limits_that_it_is_not_for_stay if {
	asks(bank, paying({"action": {"properties": {"pages": 3}}})) == []
	asks(bank, paying({"action": {"properties": {"pages": -1}}})) == []
	over := object.union(with_approvals([{}]), {"action": {"properties": {"pages": 3}}})
	why_in(bank, over) == ["over_limit"]
}

test_action_that_declares_none_asks_for_none if {
	asks(registry, quantity(101)) == []
	why_in(registry, object.union(quantity(101), with_approvals([{}]))) == ["action_not_granted", "unknown_action"]
	why_in(registry, object.union(quantity(101), {"context": {"approvals": [given]}})) == ["over_limit"]
}

test_approval_for_no_field_asks_for_none if {
	world := object.union(object.remove(bank, ["actions"]), {"actions": {"bank.pay": {
		"user": "required",
		"resource": "owned",
		"limits": {"amount": 100},
		"hours": false,
		"approval": {"over": {}, "queue": "managers", "until": 3600},
	}}})
	asks(world, pay) == []
	why_in(world, with_approvals([{}])) == ["over_limit"]
}

test_none_is_asked_for_where_anything_else_is_wrong if {
	asks(bank, object.union(pay, by({"id": "eve"}))) == []
	asks(bank, object.union(pay, {"context": {"chain": [edge, "spiffe://other/x", shop]}})) == []
	asks(object.union(bank, {"revoked": {"users": {"ola": true}}}), pay) == []
	asks(object.union(bank, {"revoked": {"sessions": {"s-1": true}}}), pay) == []
	asks(object.union(bank, {"revoked": {"clients": {"web": true}}}), pay) == []
	asks(object.union(bank, {"revoked": {"agents": {edge: true}}}), pay) == []
	asks(object.union(bank, {"agents": {shop: {"actions": {"bank.pay": false}}}}), pay) == []
	closed := {"actions": {"bank.pay": {"hours": true}}}
	asks(object.union(bank, closed), paying({"context": {"time": "2026-11-22T02:00:00Z"}})) == []
}

for_nobody := object.union(bank, {"actions": {"bank.pay": {"user": "none", "resource": "any"}}})

test_none_is_asked_for_where_nobody_is_behind_it if {
	asks(for_nobody, pay) == [wanted]
	asks(for_nobody, object.union(pay, by(no_user))) == []
	asks(for_nobody, object.union(pay, by({"present": false}))) == []
	why_in(for_nobody, object.union(with_approvals([{}]), by(no_user))) == ["over_limit"]
}

on(id) := paying({"resource": {"id": id}})

test_people_are_asked_in_plain_words_or_not_at_all if {
	asks(bank, on("7")) != []
	asks(bank, on("A-7:b/c@d.e_f+g=h|i")) != []
	every id in ["", " 7", "7 ", "7,", "7:", "-7", "7, for mia", "a\nb", "a\u202eb", "ä", "7\"", "7\u0000"] {
		asks(bank, on(id)) == []
	}
	asks(bank, paying({"resource": {"type": "an invoice"}})) == []
	asks(for_nobody, object.union(pay, by({"id": "ola sommer"}))) == []
	asks(for_nobody, object.union(pay, by({"id": ""}))) == []
}

test_people_are_asked_in_few_words_or_not_at_all if {
	long := concat("", [part | some part in split("xxxxxxxxxx,xxxxxxxxxx,xxxxxxxxxx,xxxxxxxxxx,xxxxxxxxxx", ",")])
	fits := concat("", [long, long, long, long, "xxxxxxxxxxxxxxxxx"])
	[one] := asks(bank, on(fits))
	startswith(one.text, "bank.pay: amount 250, invoice xxx")
	asks(bank, on(concat("", [fits, "x"]))) == []
}

test_fields_are_named_in_order if {
	world := object.union(bank, {"actions": {"bank.pay": {"approval": {"over": {"pages": 9, "fee": 5}}}}})
	[one] := asks(world, paying({"action": {"properties": {"fee": 3, "pages": 7}}}))
	one.text == "bank.pay: amount 250, fee 3, pages 7, invoice i-7, for ola"
}

test_declaration_says_nothing_in_the_place_of_facts if {
	world := object.union(bank, {"actions": {"bank.pay": {"approval": {"text": "Nothing", "type": "show_reasons"}}}})
	asks(world, pay) == [wanted]
}

test_once_approved_it_may_be_done if {
	answer_in(bank, with_approvals([{}])) == allowed
	answer_in(bank, with_approvals([{"user": "max"}])) == allowed
	answer_in(for_nobody, with_approvals([{}])) == allowed
}

test_approval_sets_nothing_else_aside if {
	why_in(bank, object.union(with_approvals([{}]), by({"id": "eve"}))) == ["not_owner", "over_limit"]
	why_in(bank, object.union(with_approvals([{}]), {"context": {"chain": [edge]}})) == ["over_limit", "unknown_chain_agent"]
	revoked := object.union(bank, {"revoked": {"users": {"ola": true}}})
	why_in(revoked, with_approvals([{}])) == ["over_limit", "revoked_user"]
	over := object.union(with_approvals([{}]), {"action": {"properties": {"amount": 501}}})
	why_in(bank, over) == ["over_limit"]
	asks(bank, over) == []
}

# Waits on: the same is asked for as before.
not_enough(world, changed) if {
	found := answer_in(world, with_approvals(changed))
	[found.allow, found.reasons, found.obligations] == [false, ["over_limit"], [wanted]]
}

test_nobody_approves_for_themselves if {
	own := object.union(with_approvals([{}]), by({"id": "mia"}))
	why_in(bank, own) == ["over_limit"]
	elsewhere := object.union(with_approvals([{"idp": "https://other.example"}]), by({"id": "mia"}))
	why_in(bank, elsewhere) == ["over_limit"]
	both := object.union(with_approvals([{}, {"user": "max"}]), by({"id": "mia"}))
	answer_in(bank, both) == allowed
}

test_approval_of_who_may_no_longer_give_it_does_not_count if {
	not_enough(bank, [{"user": "eve"}])
	not_enough(bank, [{"user": ""}])
	not_enough(object.union(bank, {"users": {"": {"customers": {"acme": true}}}}), [{"user": ""}])
	not_enough(bank, [{"user": "robot"}])
	not_enough(object.union(bank, {"users": {"mia": {"customers": {"acme": false}}}}), [{}])
	not_enough(object.union(bank, {"revoked": {"users": {"mia": true}}}), [{}])
	not_enough(object.union(bank, {"revoked": {"sessions": {"s-2": true}}}), [{}])
	not_enough(object.union(bank, {"revoked": {"clients": {"desk": true}}}), [{}])
	one_left := object.union(bank, {"revoked": {"users": {"mia": true}}})
	answer_in(one_left, with_approvals([{}, {"user": "max"}])) == allowed
}

approved_by(one) := data.sealbus.lib.rules.approved(object.union(request, {"context": {"approvals": [one]}}), bank)

test_denial_is_no_approval if {
	approved_by(given) == true
	approved_by(object.union(given, {"verdict": "deny"})) == false
}

test_amount_that_is_no_number_is_not_told if {
	asked := object.union(request, paying({"action": {"properties": {"amount": "250"}}}))
	text := data.sealbus.lib.rules.question(bank.actions["bank.pay"], asked)
	text == "bank.pay: , invoice i-7, for ola"
}

test_what_somebody_denied_is_denied_whoever_approved_it if {
	denied := {"allow": false, "reasons": ["not_approved", "over_limit"], "obligations": [], "policy": "starter"}
	answer_in(bank, with_approvals([{"verdict": "deny"}])) == denied
	answer_in(bank, with_approvals([{}, {"user": "max", "verdict": "deny"}])) == denied
	answer_in(bank, with_approvals([{"verdict": "maybe"}])) == denied
}
