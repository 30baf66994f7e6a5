# Who is behind a request: our own users, and others whom the registry knows with what they are.
package sealbus.authz_test

look := action("stock.look")

partner(id) := by({"id": sprintf("%v@partner.example", [id]), "domain": "partner.example"})

client(id) := by({"id": id, "client": id, "type": "client"})

build := by({"id": "repo:acme/shop@ci.example", "domain": "ci.example", "type": "workload"})

knowing(id, entry) := object.union(registry, {"users": {id: entry}})

test_own_user_needs_no_entry if {
	answer(object.union(look, by({"id": "eve"}))) == allowed
}

test_nobody_needs_no_entry if {
	answer(object.union(look, by(no_user))) == allowed
}

test_user_of_a_partner_is_let_in_by_the_registry_alone if {
	why(object.union(look, partner("kim"))) == ["unknown_user"]
	world := knowing("kim@partner.example", {"customers": {}})
	answer_in(world, object.union(look, partner("kim"))) == allowed
	why_in(world, object.union(look, partner("lee"))) == ["unknown_user"]
}

test_user_of_a_partner_is_none_of_ours_with_the_same_name if {
	why(partner("ola")) == ["not_owner", "unknown_user"]
	world := knowing("ola@partner.example", {"customers": {}})
	why_in(world, partner("ola")) == ["not_owner"]
}

test_user_of_a_partner_whose_id_does_not_say_so_is_unknown if {
	why(by({"domain": "partner.example"})) == ["unknown_user"]
}

test_user_of_a_partner_manages_what_the_registry_says if {
	world := knowing("kim@partner.example", {"customers": {"acme": true}})
	answer_in(world, partner("kim")) == allowed
	why_in(knowing("kim@partner.example", {"customers": {"globex": true}}), partner("kim")) == ["not_owner"]
}

test_client_is_let_in_by_the_registry_alone if {
	why(object.union(look, client("reports"))) == ["unknown_user"]
	world := knowing("reports", {"type": "client", "customers": {"acme": true}})
	answer_in(world, object.union(look, client("reports"))) == allowed
	answer_in(world, client("reports")) == allowed
}

test_client_with_the_id_of_a_user_is_not_that_user if {
	why(client("ola")) == ["not_owner", "unknown_user"]
	why(client("mia")) == ["not_owner", "unknown_user"]
}

test_user_with_the_id_of_a_client_is_not_that_client if {
	world := knowing("reports", {"type": "client", "customers": {"acme": true}})
	why_in(world, by({"id": "reports"})) == ["not_owner"]
}

test_user_and_client_with_one_id_do_not_own_the_same_things if {
	world := knowing("ola", {"type": "client", "customers": {}})
	answer_in(world, client("ola")) == allowed
	why_in(world, by({"id": "ola"})) == ["not_owner"]
	answer(by({"id": "ola"})) == allowed
}

test_workload_is_let_in_as_what_it_is if {
	id := "repo:acme/shop@ci.example"
	why(object.union(look, build)) == ["unknown_user"]
	why_in(knowing(id, {"type": "client", "customers": {}}), object.union(look, build)) == ["unknown_user"]
	why_in(knowing(id, {"customers": {}}), object.union(look, build)) == ["unknown_user"]
	answer_in(knowing(id, {"type": "workload", "customers": {}}), object.union(look, build)) == allowed
}

test_subject_of_no_known_type_is_unknown if {
	why(object.union(look, by({"type": ""}))) == ["unknown_user"]
	why(object.union(look, by({"type": "robot"}))) == ["unknown_user"]
}

test_unknown_client_cancels_nothing if {
	why(object.union(cancel, client("reports"))) == array.concat(refused_cancel, ["unknown_user"])
	answer_in(knowing("reports", {"type": "client"}), object.union(cancel, client("reports"))) == allowed
}
