# Who may connect, and with which grants: the tests have their own registry.
package sealbus.connect_test

shop := "spiffe://example.org/agent/shop"

stock := "spiffe://example.org/agent/stock"

ops := "spiffe://example.org/agent/ops"

registry := {
	"agents": {
		shop: {"actions": {"stock.update": true, "stock.look": true, "stock.count": false, "shop.told": true}},
		stock: {"actions": {"stock.update.reply": true, "stock.changed": true}},
	},
	"workloads": {ops: {"role": "operator", "tenant": "acme"}},
	"roles": {
		"agent": {"publish": ["more.agent"], "subscribe": ["heard.agent"]},
		"operator": {"publish": ["$JS.API.STREAM.CREATE.*"], "subscribe": ["$SYS.ops"]},
	},
	"tenants": {
		"default": {"account": "APP", "limits": {"subscriptions": 10, "payload": -1, "data": -1}},
		"acme": {"account": "ACME", "limits": {"subscriptions": 20, "payload": 1024, "data": -1}},
	},
	"revoked": {"agents": {}, "users": {}, "sessions": {}, "clients": {}},
}

request(id, token, own) := {
	"v": 1,
	"subject": {"type": "workload", "id": id, "properties": {"trust_domain": "example.org", "token": token}},
	"action": {"name": "nats.connect", "properties": {}},
	"resource": {"type": "nats_server", "id": "N", "properties": {"name": "n1"}},
	"context": {"time": "2026-11-24T12:00:00Z", "not_after": "2026-11-24T13:00:00Z", "own_subjects": own},
}

decided(world, asked) := answer if {
	answer := data.sealbus.connect.decision with input as asked with data.sealbus.registry as world
}

of_shop := decided(registry, request(shop, "shop", []))

of_stock := decided(registry, request(stock, "stock", []))

of_ops := decided(registry, request(ops, "ops", []))

has(subjects, subject) if {
	subject in subjects
} else := false

denied(words) := {"allow": false, "reasons": words, "policy": "starter"}

test_decision_has_exactly_its_keys if {
	object.keys(of_shop) == {"allow", "reasons", "policy", "account", "publish", "subscribe", "limits"}
	of_shop.allow == true
	of_shop.reasons == []
	of_shop.policy == "starter"
	of_shop.publish.deny == []
	of_shop.subscribe.deny == []
}

test_agent_is_one_of_the_default_tenant if {
	of_shop.account == "APP"
	of_shop.limits == {"subscriptions": 10, "payload": -1, "data": -1}
}

test_listed_workload_has_its_role_and_tenant if {
	of_ops.account == "ACME"
	of_ops.limits.subscriptions == 20
	"$JS.API.STREAM.CREATE.*" in of_ops.publish.allow
	"$SYS.ops" in of_ops.subscribe.allow
	has(of_ops.publish.allow, "more.agent") == false
}

apart := object.union(registry, {
	"tenants": {"acme": {"account": "ACME_AGENTS", "streams": "ACME", "limits": registry.tenants.acme.limits}},
	"workloads": {
		shop: {"role": "agent", "tenant": "acme"},
		ops: {"role": "operator", "tenant": "acme"},
	},
})

with_streams(streams) := object.union(apart, {"roles": {"operator": {"streams": streams}}})

test_who_needs_the_streams_themselves_is_in_their_account if {
	decided(with_streams(true), request(ops, "ops", [])).account == "ACME"
	decided(with_streams(true), request(shop, "shop", [])).account == "ACME_AGENTS"
	every other in [false, "yes", null, {}] {
		decided(with_streams(other), request(ops, "ops", [])).account == "ACME_AGENTS"
	}
	decided(apart, request(ops, "ops", [])).account == "ACME_AGENTS"
}

test_tenant_of_one_account_has_everybody_there if {
	roles := {"roles": {"operator": {"streams": true}}}
	decided(object.union(registry, roles), request(ops, "ops", [])).account == "ACME"
}

test_library_has_three_roles_with_the_streams if {
	{name | some name, role in data.sealbus.lib.roles; role.streams == true} == {"backup", "control", "operator"}
}

test_agent_has_what_its_role_adds_and_no_more if {
	"more.agent" in of_shop.publish.allow
	"heard.agent" in of_shop.subscribe.allow
	has(of_shop.publish.allow, "$JS.API.STREAM.CREATE.*") == false
}

test_listed_agent_has_what_is_listed if {
	world := object.union(registry, {"workloads": {shop: {"role": "agent", "tenant": "acme"}}})
	decided(world, request(shop, "shop", [])).account == "ACME"
}

test_granted_actions_are_requests if {
	every subject in ["task.stock.update", "task.stock.update.*", "call.stock.update", "call.stock.look"] {
		subject in of_shop.publish.allow
	}
}

test_who_may_be_asked_may_be_told_to_cancel if {
	"control.stock.cancel" in of_shop.publish.allow
	every subject in of_shop.publish.allow {
		not subject in ["control.>", "control.*.cancel"]
	}
	answer := decided(registry, request(shop, "shop", declared))
	"control.{spiffe://example.org/agent/stock}.cancel" in answer.publish.allow
}

asks(actions, own) := decided(
	{
		"agents": {shop: {"actions": actions}},
		"workloads": {},
		"roles": registry.roles,
		"tenants": registry.tenants,
		"revoked": registry.revoked,
	},
	request(shop, "shop", own),
).publish.allow

test_who_is_granted_it_may_ask_for_schedules if {
	has(asks({"stock._schedule": true}, []), "control.stock.schedule") == true
	has(asks({"shop._schedule": true}, []), "control.shop.schedule") == true
	has(asks({"stock._schedule": false}, []), "control.stock.schedule") == false
	has(asks({"stock.update": true, "stock._cancel": true}, []), "control.stock.schedule") == false
	has(asks({"stock._schedule.reply": true, "stock.a_schedule": true}, []), "control.stock.schedule") == false
	has(asks({"stock.more._schedule": true}, []), "control.stock.schedule") == false
}

test_who_may_ask_nothing_may_tell_nobody_to_cancel if {
	has(asks({"stock.update": false}, []), "control.stock.cancel") == false
	has(asks({"stock.update.reply": true}, []), "control.stock.cancel") == false
	has(asks({}, declared), "control.{spiffe://example.org/agent/stock}.cancel") == false
	has(asks({"stock.update": false}, declared), "control.{spiffe://example.org/agent/stock}.cancel") == false
	has(asks({"stock.sold": true}, declared), "control.{spiffe://example.org/agent/stock}.cancel") == false
	has(asks({"stock.price": true}, declared), "control.{spiffe://example.org/agent/stock}.cancel") == true
}

minting(role) := decided(
	object.union(registry, {
		"workloads": {shop: {"role": "edge", "tenant": "default"}},
		"roles": object.union(registry.roles, {"edge": role}),
	}),
	request(shop, "shop", declared),
).publish.allow

test_who_mints_tells_whom_it_may_ask_what_was_approved if {
	allowed := minting({"approves": true, "publish": [], "subscribe": []})
	has(allowed, "control.stock.approve") == true
	has(allowed, "control.{spiffe://example.org/agent/stock}.approve") == true
	every subject in allowed {
		not subject in ["control.>", "control.*.approve", "control.ops.approve"]
	}
}

test_nobody_else_approves if {
	every allowed in [
		of_shop.publish.allow,
		of_stock.publish.allow,
		of_ops.publish.allow,
		minting({"publish": [], "subscribe": []}),
		minting({"approves": false, "publish": [], "subscribe": []}),
		minting({"approves": "yes", "publish": [], "subscribe": []}),
	] {
		every subject in allowed {
			not startswith(subject, "control.stock.approve")
			not startswith(subject, "control.{spiffe://example.org/agent/stock}.approve")
		}
	}
}

test_starter_edge_alone_approves if {
	approving := {id |
		some id, agent in data.sealbus.registry.agents
		answer := data.sealbus.connect.decision with input as request(id, "x", [])
		some subject in answer.publish.allow
		startswith(subject, "control.")
		endswith(subject, ".approve")
	}
	approving == {"spiffe://example.org/edge"}
}

test_withdrawn_grant_is_none if {
	has(of_shop.publish.allow, "task.stock.count") == false
	has(of_shop.publish.allow, "call.stock.count") == false
}

test_answers_are_no_requests if {
	every subject in of_stock.publish.allow {
		not startswith(subject, "task.stock.update.reply")
		not startswith(subject, "call.stock.update.reply")
	}
}

test_nobody_may_ask_for_everything if {
	every subject in of_shop.publish.allow {
		not subject in ["task.>", "call.>", "status.>", ">", "task.*.>", "call.*.*"]
	}
}

test_who_may_ask_is_answered if {
	"status.{spiffe://example.org/agent/shop}.*" in of_stock.publish.allow
	"_INBOX.{spiffe://example.org/agent/shop}.reply.*.*" in of_stock.publish.allow
}

test_who_may_not_ask_is_not_answered if {
	world := object.union(registry, {"agents": {shop: {"actions": {"stock.update": false, "stock.look": false}}}})
	answer := decided(world, request(stock, "stock", []))
	every subject in answer.publish.allow {
		not startswith(subject, "status.{spiffe://example.org/agent/shop}")
		not startswith(subject, "_INBOX.{spiffe://example.org/agent/shop}")
	}
}

test_answering_is_for_whom_a_verb_of_ours_is_granted if {
	every subject in of_shop.publish.allow {
		not startswith(subject, "status.{spiffe://example.org/agent/stock}")
	}
	"status.{spiffe://example.org/agent/shop}.*" in of_shop.publish.allow
}

test_listed_callers_are_those_who_are_answered if {
	away := "spiffe://example.org/agent/away"
	world := object.union(registry, {"callers": {"stock": {away: true, ops: false}}})
	answer := decided(world, request(stock, "stock", []))
	has(answer.publish.allow, "status.{spiffe://example.org/agent/away}.*") == true
	has(answer.publish.allow, "status.{spiffe://example.org/agent/ops}.*") == false
	has(answer.publish.allow, "status.{spiffe://example.org/agent/shop}.*") == false
}

test_callers_of_another_agent_are_no_matter if {
	world := object.union(registry, {"callers": {"shop": {}}})
	answer := decided(world, request(stock, "stock", []))
	has(answer.publish.allow, "status.{spiffe://example.org/agent/shop}.*") == true
}

test_answers_of_three_parts_are_asked_for_by_nobody if {
	world := object.union(registry, {"agents": {shop: {"actions": {"stock.update": false, "stock.look": false, "stock.update.reply": true}}}})
	answer := decided(world, request(stock, "stock", []))
	has(answer.publish.allow, "status.{spiffe://example.org/agent/shop}.*") == false
}

test_name_that_begins_alike_is_another if {
	answer := decided(registry, request(stock, "stoc", []))
	has(answer.publish.allow, "status.{spiffe://example.org/agent/shop}.*") == false
}

test_own_subjects_of_the_scheme if {
	every subject in ["event.{self}.*", "dead.{self}.>", "audit.{self}", "refused.{self}", "state.{self}.>", "held.{self}.>"] {
		subject in of_shop.publish.allow
	}
	of_shop.subscribe.allow == ["_INBOX.{self}.>", "call.{self}.* {self}", "heard.agent"]
}

test_streams_api_is_its_own_consumers if {
	api := {subject | some subject in of_shop.publish.allow; startswith(subject, "$JS.")}
	api == {
		"$JS.API.STREAM.LIST",
		"$JS.API.STREAM.NAMES",
		"$JS.API.DIRECT.GET.STATE.state.{self}.>",
		"$JS.API.CONSUMER.CREATE.TASKS.{self}.task.{self}.>",
		"$JS.API.CONSUMER.INFO.TASKS.{self}",
		"$JS.API.CONSUMER.DELETE.TASKS.{self}",
		"$JS.API.CONSUMER.MSG.NEXT.TASKS.{self}",
		"$JS.ACK.TASKS.{self}.>",
		"$JS.API.CONSUMER.CREATE.TASKS.id-ctl-{self}.control.{self}.>",
		"$JS.API.CONSUMER.INFO.TASKS.id-ctl-{self}",
		"$JS.API.CONSUMER.DELETE.TASKS.id-ctl-{self}",
		"$JS.API.CONSUMER.MSG.NEXT.TASKS.id-ctl-{self}",
		"$JS.ACK.TASKS.id-ctl-{self}.>",
		"$JS.API.CONSUMER.CREATE.TASKS.id-apr-{self}.control.{self}.approve",
		"$JS.API.CONSUMER.INFO.TASKS.id-apr-{self}",
		"$JS.API.CONSUMER.DELETE.TASKS.id-apr-{self}",
		"$JS.API.CONSUMER.MSG.NEXT.TASKS.id-apr-{self}",
		"$JS.ACK.TASKS.id-apr-{self}.>",
		"$JS.API.CONSUMER.CREATE.TASKS.id-sch-{self}.control.{self}.schedule",
		"$JS.API.CONSUMER.INFO.TASKS.id-sch-{self}",
		"$JS.API.CONSUMER.DELETE.TASKS.id-sch-{self}",
		"$JS.API.CONSUMER.MSG.NEXT.TASKS.id-sch-{self}",
		"$JS.ACK.TASKS.id-sch-{self}.>",
		"$JS.API.CONSUMER.CREATE.STATE.*.state.*.stop.*.*",
		"$JS.API.CONSUMER.MSG.NEXT.STATE.*",
		"$JS.API.CONSUMER.DELETE.STATE.*",
		"$JS.API.CONSUMER.CREATE.HELD.*.held.{self}.>",
		"$JS.API.CONSUMER.CREATE.HELD.*.held.*.wait.{self}.*",
		"$JS.API.CONSUMER.CREATE.HELD.*.held.*.stop.*.*",
		"$JS.API.CONSUMER.CREATE.HELD.*.held.*.keys",
		"$JS.API.CONSUMER.MSG.NEXT.HELD.*",
		"$JS.API.CONSUMER.DELETE.HELD.*",
		"$JS.API.CONSUMER.CREATE.EVENTS.{self}",
		"$JS.API.CONSUMER.CREATE.EVENTS.{self}.>",
		"$JS.API.CONSUMER.INFO.EVENTS.{self}",
		"$JS.API.CONSUMER.DELETE.EVENTS.{self}",
		"$JS.API.CONSUMER.MSG.NEXT.EVENTS.{self}",
		"$JS.ACK.EVENTS.{self}.>",
		"$JS.API.CONSUMER.CREATE.RESULTS.*.status.{self}.*",
		"$JS.API.CONSUMER.MSG.NEXT.RESULTS.*",
		"$JS.API.CONSUMER.DELETE.RESULTS.*",
		"$JS.API.DIRECT.GET.OBJ_policies.$O.policies.M.*",
		"$JS.API.CONSUMER.CREATE.OBJ_policies.*.$O.policies.>",
		"$JS.API.CONSUMER.MSG.NEXT.OBJ_policies.*",
		"$JS.API.CONSUMER.DELETE.OBJ_policies.*",
	}
}

declared := [
	{"subject": "orders.made", "kind": "task", "owner": stock, "action": "stock.update", "durable": "id-own-1"},
	{"subject": "orders.price", "kind": "call", "owner": stock, "action": "stock.price", "durable": ""},
	{"subject": "orders.sold", "kind": "event", "owner": stock, "action": "stock.sold", "durable": ""},
]

test_own_subjects_are_published_by_who_is_granted_their_action if {
	answer := decided(registry, request(shop, "shop", declared))
	"orders.made" in answer.publish.allow
	has(answer.publish.allow, "orders.price") == false
	has(answer.publish.allow, "orders.sold") == false
}

test_own_event_is_its_owners_alone if {
	world := object.union(registry, {"agents": {shop: {"actions": {"stock.sold": true}}}})
	has(decided(world, request(shop, "shop", declared)).publish.allow, "orders.sold") == false
	"orders.sold" in decided(registry, request(stock, "stock", declared)).publish.allow
}

test_owner_consumes_and_serves_its_own_subjects if {
	answer := decided(registry, request(stock, "stock", declared))
	every subject in [
		"$JS.API.CONSUMER.CREATE.TASKS.id-own-1.orders.made",
		"$JS.API.CONSUMER.INFO.TASKS.id-own-1",
		"$JS.API.CONSUMER.DELETE.TASKS.id-own-1",
		"$JS.API.CONSUMER.MSG.NEXT.TASKS.id-own-1",
		"$JS.ACK.TASKS.id-own-1.>",
	] {
		subject in answer.publish.allow
	}
	answer.subscribe.allow == ["_INBOX.{self}.>", "call.{self}.* {self}", "orders.price {self}", "heard.agent"]
}

test_nobody_else_consumes_or_serves_them if {
	answer := decided(registry, request(shop, "shop", declared))
	answer.subscribe.allow == ["_INBOX.{self}.>", "call.{self}.* {self}", "heard.agent"]
	every subject in answer.publish.allow {
		not contains(subject, "id-own-1")
	}
}

test_consumers_are_for_tasks_alone if {
	answer := decided(registry, request(stock, "stock", declared))
	every subject in answer.publish.allow {
		not contains(subject, "orders.price")
		not contains(subject, "TASKS..")
	}
}

test_owner_of_an_own_subject_answers_who_may_ask if {
	away := "spiffe://example.org/agent/away"
	world := object.union(registry, {"agents": {away: {"actions": {"elsewhere.do": true}}}})
	mine := [{"subject": "orders.do", "kind": "call", "owner": stock, "action": "elsewhere.do", "durable": ""}]
	theirs := [{"subject": "orders.do", "kind": "call", "owner": shop, "action": "elsewhere.do", "durable": ""}]
	"status.{spiffe://example.org/agent/away}.*" in decided(world, request(stock, "stock", mine)).publish.allow
	has(decided(world, request(stock, "stock", theirs)).publish.allow, "status.{spiffe://example.org/agent/away}.*") == false
}

test_owner_of_an_own_subject_answers_nobody_for_another_action if {
	away := "spiffe://example.org/agent/away"
	world := object.union(registry, {"agents": {away: {"actions": {"elsewhere.else": true}}}})
	mine := [{"subject": "orders.do", "kind": "call", "owner": stock, "action": "elsewhere.do", "durable": ""}]
	answer := decided(world, request(stock, "stock", mine))
	has(answer.publish.allow, "status.{spiffe://example.org/agent/away}.*") == false
}

test_unknown_workload if {
	decided(registry, request("spiffe://example.org/agent/stranger", "stranger", [])) == denied(["unknown_workload"])
}

test_workload_of_another_trust_domain_is_another if {
	decided(registry, request("spiffe://example.com/agent/shop", "shop", [])) == denied(["unknown_workload"])
}

test_revoked_agent if {
	world := object.union(registry, {"revoked": {"agents": {shop: true}}})
	decided(world, request(shop, "shop", [])) == denied(["revoked_agent"])
	decided(world, request(stock, "stock", [])).allow == true
}

test_revocation_taken_back if {
	world := object.union(registry, {"revoked": {"agents": {shop: false}}})
	decided(world, request(shop, "shop", [])).allow == true
}

test_unknown_role_and_tenant if {
	world := object.union(registry, {"workloads": {ops: {"role": "king", "tenant": "globex"}}})
	decided(world, request(ops, "ops", [])) == denied(["unknown_role", "unknown_tenant"])
}

test_incomplete if {
	decided(registry, {}) == denied(["incomplete"])
	decided(registry, null) == denied(["incomplete"])
	decided(registry, {"subject": {"id": shop}}) == denied(["incomplete"])
	decided(registry, object.remove(request(shop, "shop", []), ["context"])) == denied(["incomplete"])
	decided(registry, request(shop, "", [])) == denied(["incomplete"])
	decided({}, request(shop, "shop", [])) == denied(["revoked_agent", "unknown_workload"])
}

test_starter_places_everybody if {
	placed := [id |
		some id, _ in data.sealbus.registry.agents
		answer := data.sealbus.connect.decision with input as request(id, "x", [])
		answer.allow == true
	]
	count(placed) == count(data.sealbus.registry.agents)
}

test_role_that_the_registry_does_not_have_is_the_librarys if {
	bare := object.remove(registry, ["roles"])
	readers := data.sealbus.lib.roles.operator.publish
	"$JS.API.INFO" in readers
	every world in [bare, object.union(bare, {"roles": {}})] {
		"$JS.API.INFO" in decided(world, request(ops, "ops", [])).publish.allow
	}
	has(of_ops.publish.allow, "$JS.API.INFO") == false
	other := object.union(bare, {"workloads": {ops: {"role": "king", "tenant": "acme"}}})
	decided(other, request(ops, "ops", [])) == denied(["unknown_role"])
}

celled := object.union(registry, {"cells": {"stock": "acme"}})

test_workload_of_a_cell_has_the_account_of_its_tenant if {
	decided(celled, request(stock, "stock", [])).account == "ACME"
	decided(celled, request(shop, "shop", [])).account == "APP"
	decided(object.union(registry, {"cells": {"ops": "default"}}), request(ops, "ops", [])).account == "APP"
}

test_cell_without_a_tenant_is_denied if {
	answer := decided(object.union(registry, {"cells": {"stock": "west"}}), request(stock, "stock", []))
	answer == denied(["unknown_tenant"])
}

test_where_there_are_cells_nobody_is_in_a_tenant_but_his_cell if {
	roles := object.union(registry.roles, {"king": {"publish": [], "subscribe": []}})
	strays := object.union(registry, {
		"roles": roles,
		"workloads": {
			ops: {"role": "king", "tenant": "acme"},
			shop: {"role": "king", "tenant": "default"},
		},
	})
	every cells in [{}, {"stock": "default"}] {
		decided(object.union(strays, {"cells": cells}), request(ops, "ops", [])).account == "ACME"
	}
	decided(strays, request(ops, "ops", [])).account == "ACME"
	beside := object.union(strays, {"cells": {"stock": "acme"}})
	decided(beside, request(ops, "ops", [])) == denied(["unknown_tenant"])
	decided(beside, request(shop, "shop", [])).account == "APP"
	decided(object.union(strays, {"cells": {"ops": "acme"}}), request(ops, "ops", [])).account == "ACME"
}

test_where_there_are_cells_an_operator_prepares_another if {
	decided(celled, request(ops, "ops", [])).account == "ACME"
}

test_what_is_said_to_others_is_said_across_cells_too if {
	answer := decided(celled, request(shop, "shop", []))
	every subject in ["task.stock.update", "call.stock.update", "control.stock.cancel", "status.{spiffe://example.org/agent/shop}.*"] {
		subject in answer.publish.allow
		sprintf("cell.*.%v", [subject]) in answer.publish.allow
	}
	every subject in ["state.{self}.>", "$JS.API.CONSUMER.MSG.NEXT.TASKS.{self}", "audit.{self}", "event.{self}.*"] {
		subject in answer.publish.allow
		has(answer.publish.allow, sprintf("cell.*.%v", [subject])) == false
	}
}

test_nothing_crosses_without_cells if {
	every world in [registry, object.union(registry, {"cells": {}})] {
		every subject in decided(world, request(shop, "shop", [])).publish.allow {
			not startswith(subject, "cell.")
		}
	}
}

# What a workload that is granted nothing reads of other cells: of its own there, of stops, of the policies, and no more.
test_only_what_concerns_a_workload_is_read_across_cells if {
	nobody := {
		"agents": {},
		"workloads": {stock: {"role": "agent", "tenant": "default"}},
		"roles": celled.roles,
		"tenants": celled.tenants,
		"revoked": celled.revoked,
		"cells": celled.cells,
	}
	crossing := {subject |
		some subject in decided(nobody, request(stock, "stock", [])).publish.allow
		startswith(subject, "cell.")
	}
	crossing == {
		"cell.*.$JS.API.STREAM.LIST",
		"cell.*.$JS.API.STREAM.NAMES",
		"cell.*.$JS.API.CONSUMER.CREATE.STATE.*.state.*.stop.*.*",
		"cell.*.$JS.API.CONSUMER.MSG.NEXT.STATE.*",
		"cell.*.$JS.API.CONSUMER.DELETE.STATE.*",
		"cell.*.$JS.API.CONSUMER.CREATE.HELD.*.held.*.wait.{self}.*",
		"cell.*.$JS.API.CONSUMER.CREATE.HELD.*.held.*.stop.*.*",
		"cell.*.$JS.API.CONSUMER.CREATE.HELD.*.held.*.keys",
		"cell.*.$JS.API.CONSUMER.MSG.NEXT.HELD.*",
		"cell.*.$JS.API.CONSUMER.DELETE.HELD.*",
		"cell.*.$JS.API.CONSUMER.CREATE.EVENTS.{self}",
		"cell.*.$JS.API.CONSUMER.CREATE.EVENTS.{self}.>",
		"cell.*.$JS.API.CONSUMER.INFO.EVENTS.{self}",
		"cell.*.$JS.API.CONSUMER.DELETE.EVENTS.{self}",
		"cell.*.$JS.API.CONSUMER.MSG.NEXT.EVENTS.{self}",
		"cell.*.$JS.ACK.EVENTS.{self}.>",
		"cell.*.$JS.API.DIRECT.GET.OBJ_policies.$O.policies.M.*",
		"cell.*.$JS.API.CONSUMER.CREATE.OBJ_policies.*.$O.policies.>",
		"cell.*.$JS.API.CONSUMER.MSG.NEXT.OBJ_policies.*",
		"cell.*.$JS.API.CONSUMER.DELETE.OBJ_policies.*",
	}
}

# Moved from the default cell: in it are what was said to it before, what it has stored, and its events of then.
test_a_moved_workload_has_what_is_left_in_the_cell_before if {
	placement := {"cell": "acme", "before": "west", "since": 1764748800000000}
	moved := object.union(registry, {"cells": {"stock": placement}})
	own_task := {"subject": "orders.new", "kind": "task", "owner": stock, "action": "stock.order", "durable": "own-7"}
	answer := decided(moved, request(stock, "stock", [own_task]))
	answer.account == "ACME"
	left := {subject | some subject in answer.publish.allow; startswith(subject, "cell.west.")}
	at_home := {"dead.{self}.>", "audit.{self}", "refused.{self}", "state.{self}.>", "held.{self}.>"}
	every subject in at_home {
		subject in answer.publish.allow
		has(left, sprintf("cell.west.%v", [subject])) == false
	}
	every subject in [
		"event.{self}.*",
		"$JS.API.CONSUMER.CREATE.TASKS.{self}.task.{self}.>",
		"$JS.ACK.TASKS.id-apr-{self}.>",
		"$JS.API.DIRECT.GET.STATE.state.{self}.>",
		"$JS.API.CONSUMER.CREATE.HELD.*.held.{self}.>",
		"$JS.API.CONSUMER.CREATE.RESULTS.*.status.{self}.*",
		"$JS.ACK.TASKS.own-7.>",
	] {
		sprintf("cell.west.%v", [subject]) in left
	}
	others := decided(moved, request(shop, "shop", [])).publish.allow
	every subject in others {
		not startswith(subject, "cell.west.")
	}
}

test_a_role_reads_across_cells_what_it_names if {
	reader := object.union(celled, {"roles": {"agent": {"across": ["x.>"], "publish": ["y.>"], "subscribe": []}}})
	answer := decided(reader, request(shop, "shop", [])).publish.allow
	has(answer, "cell.*.x.>") == true
	has(answer, "x.>") == false
	has(answer, "y.>") == true
	has(answer, "cell.*.y.>") == false
}
