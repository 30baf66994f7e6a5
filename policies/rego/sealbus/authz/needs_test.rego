# The declared needs of an action: user, reach, limits, hours.
package sealbus.authz_test

test_user_is_required if {
	why(by(no_user)) == ["not_owner", "user_required"]
}

test_user_without_an_id_is_none if {
	why(by({"id": ""})) == ["not_owner", "user_required"]
}

test_user_who_is_said_not_to_be_there_is_none if {
	why(by({"present": false})) == ["not_owner", "user_required"]
}

test_user_is_not_required_where_none_is_needed if {
	answer(object.union(action("stock.look"), by(no_user))) == allowed
}

test_user_may_be_there_where_none_is_needed if {
	answer(action("stock.look")) == allowed
}

test_need_of_a_user_that_nobody_knows_denies if {
	world := object.union(registry, {"actions": {
		"stock.update": {"user": "maybe"},
		"stock.look": {"user": "maybe"},
	}})
	why_in(world, by({"id": "ola"})) == ["not_owner", "user_required"]
	why_in(world, by({"id": "mia"})) == ["not_owner", "user_required"]
	why_in(world, action("stock.look")) == ["user_required"]
}

test_owner_may if {
	answer(by({"id": "ola"})) == allowed
}

test_manager_of_the_customer_may if {
	answer(by({"id": "mia"})) == allowed
}

test_nobody_else_may if {
	why(by({"id": "eve"})) == ["not_owner"]
}

test_manager_of_another_customer_may_not if {
	item := {"resource": {"properties": {"customer": "initech"}}}
	why(object.union(by({"id": "mia"}), item)) == ["not_owner"]
}

test_management_that_is_false_is_none if {
	item := {"resource": {"properties": {"customer": "globex"}}}
	why(object.union(by({"id": "mia"}), item)) == ["not_owner"]
}

test_item_without_owner_or_customer_is_for_nobody if {
	bare := {"type": "item", "id": "42", "properties": {"region": "north"}}
	found := decided(registry, object.union(object.remove(request, ["resource"]), {"resource": bare}))
	found.reasons == ["not_owner"]
}

test_absent_user_owns_nothing if {
	world := object.union(registry, {"actions": {"stock.update": {"user": "none"}}})
	item := {"resource": {"properties": {"owner": ""}}}
	why_in(world, object.union(by(no_user), item)) == ["not_owner"]
}

test_user_without_an_id_owns_nothing if {
	item := {"resource": {"properties": {"owner": ""}}}
	why(object.union(by({"id": ""}), item)) == ["not_owner", "user_required"]
}

test_user_who_is_said_not_to_be_there_manages_nothing if {
	why(by({"id": "mia", "present": false})) == ["not_owner", "user_required"]
}

test_absent_user_manages_nothing if {
	tables := {"actions": {"stock.update": {"user": "none"}}, "users": {"": {"customers": {"acme": true}}}}
	why_in(object.union(registry, tables), by(no_user)) == ["not_owner"]
}

test_anybody_reaches_what_is_not_owned if {
	answer(object.union(action("stock.look"), by({"id": "eve"}))) == allowed
}

test_reach_that_nobody_knows_denies if {
	world := object.union(registry, {"actions": {"stock.update": {"resource": "shared"}}})
	why_in(world, by({"id": "ola"})) == ["not_owner"]
	why_in(world, by({"id": "mia"})) == ["not_owner"]
}

quantity(value) := {"action": {"properties": {"quantity": value}}}

test_quantity_at_the_limit if {
	answer(quantity(100)) == allowed
}

test_quantity_over_the_limit if {
	why(quantity(101)) == ["over_limit"]
}

test_quantity_of_nothing if {
	answer(quantity(0)) == allowed
}

test_quantity_below_nothing if {
	why(quantity(-1)) == ["over_limit"]
}

test_quantity_in_words if {
	why(quantity("3")) == ["over_limit"]
}

test_quantity_that_is_a_boolean if {
	why(quantity(true)) == ["over_limit"]
}

test_quantity_that_is_a_list if {
	why(quantity(["3"])) == ["over_limit"]
}

test_limited_field_must_be_declared_by_the_message if {
	why(action("stock.count")) == ["over_limit"]
}

counting(rows, pages) := {"action": {"name": "stock.count", "properties": {"rows": rows, "pages": pages}}}

test_every_limited_field_within_its_limit if {
	answer(counting(10, 2)) == allowed
}

test_first_limited_field_over_its_limit if {
	why(counting(11, 2)) == ["over_limit"]
}

test_last_limited_field_over_its_limit if {
	why(counting(10, 3)) == ["over_limit"]
}

test_field_without_a_limit_is_free if {
	answer({"action": {"properties": {"weight": 1000000}}}) == allowed
}

at(time) := {"context": {"time": time}}

test_open_at_the_first_minute if {
	answer(at("2026-11-24T07:00:00Z")) == allowed
}

test_closed_a_second_before if {
	why(at("2026-11-24T06:59:59Z")) == ["outside_business_hours"]
}

test_open_until_the_last_second if {
	answer(at("2026-11-24T17:29:59Z")) == allowed
}

test_closed_on_the_minute if {
	why(at("2026-11-24T17:30:00Z")) == ["outside_business_hours"]
}

test_closed_on_another_weekday if {
	why(at("2026-11-25T12:00:00Z")) == ["outside_business_hours"]
}

in_region(region, time) := {"resource": {"properties": {"region": region}}, "context": {"time": time}}

# In region west it is still Monday, 16:00.
test_day_before_in_the_west if {
	answer(in_region("west", "2026-11-24T00:00:00Z")) == allowed
}

test_same_utc_day_in_the_west_is_over if {
	why(in_region("west", "2026-11-24T01:00:00Z")) == ["outside_business_hours"]
}

# In region east it is Wednesday already, 9:00.
test_day_after_in_the_east if {
	answer(in_region("east", "2026-11-24T23:30:00Z")) == allowed
}

test_day_after_in_the_east_is_not_open_yet if {
	why(in_region("east", "2026-11-24T23:29:59Z")) == ["outside_business_hours"]
}

test_unknown_region_is_never_open if {
	why(in_region("nowhere", "2026-11-24T12:00:00Z")) == ["outside_business_hours"]
}

test_hours_do_not_matter_where_none_are_needed if {
	answer(object.union(action("stock.look"), in_region("nowhere", "2026-11-22T02:00:00Z"))) == allowed
}

test_need_of_hours_that_nobody_knows_denies if {
	world := object.union(registry, {"actions": {"stock.look": {"hours": "sometimes"}}})
	why_in(world, action("stock.look")) == ["outside_business_hours"]
}
