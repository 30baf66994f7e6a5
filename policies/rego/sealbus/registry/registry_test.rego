# The rules for every registry: these tests check the data documents next to this file, not the rules.
package sealbus.registry_test

registry := data.sealbus.registry

grants contains name if {
	some agent in registry.agents
	some name, _ in agent.actions
}

test_there_are_agents_and_actions if {
	count(registry.agents) > 0
	count(registry.actions) > 0
}

test_agents_are_spiffe_ids if {
	every id, _ in registry.agents {
		startswith(id, "spiffe://")
	}
}

test_grants_are_booleans if {
	every agent in registry.agents {
		every granted in agent.actions {
			is_boolean(granted)
		}
	}
}

test_every_granted_action_is_declared if {
	every name in grants {
		registry.actions[name]
	}
}

test_every_declared_action_is_granted_to_somebody if {
	every name, _ in registry.actions {
		name in grants
	}
}

test_every_action_says_what_it_needs if {
	every needs in registry.actions {
		object.remove(needs, ["user", "resource", "limits", "hours", "approval"]) == {}
		object.keys(object.remove(needs, ["approval"])) == {"user", "resource", "limits", "hours"}
		needs.user in {"required", "none"}
		needs.resource in {"owned", "any"}
		is_object(needs.limits)
		is_boolean(needs.hours)
	}
}

test_limits_are_numbers if {
	every needs in registry.actions {
		every limit in needs.limits {
			is_number(limit)
		}
	}
}

# The rest of it becomes the obligation: what is said here is what a denial asks for, and a member too many asks nobody.
test_approvals_say_whom_they_ask_and_up_to_what if {
	every needs in registry.actions {
		approval := object.get(needs, "approval", {"over": {"x": 0}, "queue": "x", "until": 1})
		object.remove(approval, ["over", "queue", "until", "acr", "max_age", "follows", "body"]) == {}
		regex.match("^[0-9A-Za-z_-]{1,64}$", approval.queue)
		approval.until > 0
		approval.until <= 2592000
		count(approval.over) > 0
		every names in [object.get(approval, "acr", []), object.get(approval, "follows", [])] {
			is_array(names)
			every name in names {
				is_string(name)
			}
		}
		object.get(approval, "max_age", 0) >= 0
		object.get(approval, "max_age", 0) <= 31536000
		is_boolean(object.get(approval, "body", true))
	}
}

test_approvals_are_for_more_than_the_limits if {
	every needs in registry.actions {
		every field, limit in object.get(needs, "approval", {"over": {}}).over {
			limit > needs.limits[field]
		}
	}
}

# Without a user nothing is owned.
test_owned_items_need_a_user if {
	every needs in registry.actions {
		[needs.user, needs.resource] != ["none", "owned"]
	}
}

test_users_have_ids if {
	every id, _ in registry.users {
		id != ""
	}
}

# Who is no user is nobody unless it says what it is.
test_others_say_what_they_are if {
	every user in registry.users {
		object.get(user, "type", "user") in {"user", "client", "workload"}
	}
}

test_users_name_the_customers_that_they_manage if {
	every user in registry.users {
		every managed in user.customers {
			is_boolean(managed)
		}
	}
}

weekdays := {"Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"}

test_regions_name_weekdays if {
	every region in registry.regions {
		every day, open in region.weekdays {
			day in weekdays
			is_boolean(open)
		}
	}
}

# A region opens before it closes, on one day: hours across midnight need two regions.
test_regions_open_before_they_close if {
	every region in registry.regions {
		every edge in [region.open, region.close] {
			count(edge) == 2
			edge[0] >= 0
			edge[0] <= 24
			edge[1] >= 0
			edge[1] < 60
		}
		region.open < region.close
	}
}

test_regions_lie_within_a_day_of_utc if {
	every region in registry.regions {
		is_number(region.utc_offset_minutes)
		abs(region.utc_offset_minutes) <= 840
	}
}

test_revocations_are_kept_for_every_kind if {
	object.keys(registry.revoked) == {"agents", "users", "sessions", "clients"}
}

# A caller that is not listed gets no answer.
test_listed_callers_are_all_who_are_granted_something if {
	every agent, listed in registry.callers {
		missing := [id |
			some id, caller in registry.agents
			some name, granted in caller.actions
			granted == true
			startswith(name, sprintf("%v.", [agent]))
			object.get(listed, id, false) == false
		]
		count(missing) == 0
	}
}

# Two chunks in turn, and the description of `revocations` (cmV2...): no other object, and no request to remove one.
test_revoker_replaces_one_object_and_may_do_nothing_else if {
	data.sealbus.lib.roles.revoker == {
		"publish": [
			"$O.policies.C.revocations0",
			"$O.policies.C.revocations1",
			"$O.policies.M.cmV2b2NhdGlvbnM=",
		],
		"subscribe": [],
	}
	revoker := "spiffe://example.org/agent/revoker"
	registry.workloads[revoker].role == "revoker"
	registry.agents[revoker].actions == {"revoker.revoke.reply": true}
	holders := [id | some id, placed in registry.workloads; placed.role == "revoker"]
	holders == [revoker]
}

test_edge_alone_reports_revocations if {
	asking := [id | some id, agent in registry.agents; agent.actions["revoker.revoke"] == true]
	asking == ["spiffe://example.org/edge"]
}

# In one account an agent can have the server store its answers where it may not write itself.
test_tenants_have_an_account_for_their_streams_alone if {
	every tenant in registry.tenants {
		tenant.account != tenant.streams
	}
	names := [account | some tenant in registry.tenants; some account in [tenant.account, tenant.streams]]
	count(names) == count({account | some account in names})
}
