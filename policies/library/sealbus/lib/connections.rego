# METADATA
# title: Who may connect to NATS, for policies of one's own
# description: |
#   Decides one connection: the account it is placed in, and the subjects that it may publish and subscribe to.
#   Everything follows from the registry: an agent may request only actions that it is granted, and answer only agents
#   that may ask it. A SPIFFE ID in braces stands for its subject token from the settings, and {self} for the token of
#   the connecting workload.
#   Denied with reasons: {"allow": false, "reasons": [string], "policy": string}.
package sealbus.lib.connections

# The answer of the policy `name`, which is defined for every request.
decided(name, request) := {
	"allow": true,
	"reasons": [],
	"policy": name,
	"account": account,
	"publish": {"allow": publish, "deny": []},
	"subscribe": {"allow": subscribe, "deny": []},
	"limits": limits,
} if {
	registry := data.sealbus.registry
	id := request.subject.id
	workload := placed(registry, id)
	object.get(registry.revoked.agents, id, false) == false
	role := role_named(registry, workload.role)
	tenant := registry.tenants[tenant_of(registry, workload, request)]
	account := account_of(tenant, role)
	limits := tenant.limits

	# Without these there would silently be less to grant.
	request.subject.properties.token != ""
	is_array(request.context.own_subjects)

	# Named here, not inlined above: an undefined value there would leave one of the engines without an answer.
	publish := array.concat(publishes(registry, role, request), role.publish)
	subscribe := array.concat(subscribes(request), role.subscribe)
} else := {"allow": false, "reasons": words, "policy": name} if {
	words := reasons(request)
} else := {"allow": false, "reasons": ["incomplete"], "policy": name}

# A listed workload has the role and tenant listed; every other agent of the registry is an agent of the default
# tenant.
placed(registry, id) := registry.workloads[id] if {
	registry.workloads[id]
} else := {"role": "agent", "tenant": "default"} if {
	registry.agents[id]
}

# A cell is a tenant that the others reach: it has the workloads that the registry puts there by their subject tokens.
tenant_of(registry, workload, request) := cell if {
	cell := cell_of(registry.cells[request.subject.properties.token])
} else := workload.tenant if {
	outside_cells(registry, workload)
}

# Whether a workload that the registry puts in no cell may be in its tenant. Where there are cells, its process believes to be
# in the default one. An operator may be elsewhere, to make the streams of a cell before it is one.
outside_cells(registry, workload) if {
	workload.tenant == "default"
} else if {
	workload.role == "operator"
} else if {
	others := {cell | some cell in object.get(registry, "cells", {}); cell != "default"}
	count(others) == 0
}

cell_of(placement) := placement if {
	is_string(placement)
} else := placement.cell

# The library has the roles that sealbus itself needs, whose subjects change with its versions. A role of the registry takes
# the place of one of the same name.
role_named(registry, name) := registry.roles[name] if {
	registry.roles[name]
} else := data.sealbus.lib.roles[name]

# A tenant has two accounts: `streams` has the streams, and in it are the roles that need more of JetStream than crosses;
# `account` has everybody else. Of a tenant with `account` alone everybody is there.
account_of(tenant, role) := streams if {
	object.get(role, "streams", false) == true
	streams := tenant.streams
} else := tenant.account

reasons(request) := words if {
	registry := data.sealbus.registry
	id := request.subject.id
	conditions := {
		"revoked_agent": in_force(registry, id),
		"unknown_role": role_known(registry, id),
		"unknown_tenant": tenant_known(registry, request),
		"unknown_workload": known(registry, id),
	}
	words := sort([word | some word, met in conditions; not met])
	count(words) > 0
}

known(registry, id) if {
	placed(registry, id)
} else := false

in_force(registry, id) if {
	object.get(registry.revoked.agents, id, false) == false
} else := false

# An unknown workload has another reason.
role_known(registry, id) if {
	role_named(registry, placed(registry, id).role)
} else if {
	known(registry, id) == false
} else := false

tenant_known(registry, request) if {
	registry.tenants[tenant_of(registry, placed(registry, request.subject.id), request)]
} else if {
	known(registry, request.subject.id) == false
} else := false

publishes(registry, role, request) := [subject |
	said := [subject |
		some part in [
			requested(registry, request),
			told(registry, request, "cancel"),
			approvals(registry, role, request),
			answers(registry, request),
			schedules(registry, request),
		]
		some subject in part
	]
	elsewhere := array.concat(array.concat(said, read_across), object.get(role, "across", []))
	some part in [emitted, at_home, own, said, owned_tasks(request), across(registry, elsewhere), left(registry, request)]
	some subject in part
]

# The same in each other cell, whose name the first wildcard stands for; nothing in a deployment without cells.
across(registry, subjects) := elsewhere if {
	count(registry.cells) > 0
	elsewhere := [sprintf("cell.*.%v", [subject]) | some subject in subjects]
} else := []

# What a workload that was moved has in the cell before: what was said to it there, what it has stored there, and its events,
# which are there until the time of the move. It stores nothing else there.
left(registry, request) := subjects if {
	before := registry.cells[request.subject.properties.token].before
	subjects := [sprintf("cell.%v.%v", [before, subject]) |
		some subject in array.concat(emitted, array.concat(own, owned_tasks(request)))
	]
} else := []

# What a workload reads of other cells: what was canceled there, what waits there for it, and the events of their agents.
read_across := [
	"$JS.API.STREAM.LIST",
	"$JS.API.STREAM.NAMES",
	"$JS.API.CONSUMER.CREATE.STATE.*.state.*.stop.*.*",
	"$JS.API.CONSUMER.MSG.NEXT.STATE.*",
	"$JS.API.CONSUMER.DELETE.STATE.*",
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
	"$JS.API.DIRECT.GET.OBJ_policies.$O.policies.M.*",
	"$JS.API.CONSUMER.CREATE.OBJ_policies.*.$O.policies.>",
	"$JS.API.CONSUMER.MSG.NEXT.OBJ_policies.*",
	"$JS.API.CONSUMER.DELETE.OBJ_policies.*",
]

subscribes(request) := array.concat(
	[
		"_INBOX.{self}.>",
		# In its own queue group only: nobody but the callee can listen to its calls.
		"call.{self}.* {self}",
	],
	[sprintf("%v {self}", [one.subject]) |
		some one in request.context.own_subjects
		one.kind == "call"
		one.owner == request.subject.id
	],
)

# What a workload says to everybody.
emitted := ["event.{self}.*"]

# What a workload stores in its own cell alone.
at_home := ["dead.{self}.>", "audit.{self}", "refused.{self}", "state.{self}.>", "held.{self}.>"]

# What a workload says under its own name, and what its own consumers need of the JetStream API: exact names, so that it
# can neither read what is another's nor change a stream. Events are for everybody, so that a consumer of EVENTS may
# have any filter. Each reader of statuses has a name of its own that nobody can guess.
own := [
	# The list of streams, but not STREAM.INFO: that also shows their subjects, which name others' tasks.
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
	# What was canceled concerns every agent that handles what follows from it.
	"$JS.API.CONSUMER.CREATE.STATE.*.state.*.stop.*.*",
	"$JS.API.CONSUMER.MSG.NEXT.STATE.*",
	"$JS.API.CONSUMER.DELETE.STATE.*",
	# Values that outlive a day: its own, what waits for an answer to it, stops, and the key books of notaries.
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
	# The bucket that policies are pushed to, read only: its contents are signed, and not secret.
	"$JS.API.DIRECT.GET.OBJ_policies.$O.policies.M.*",
	"$JS.API.CONSUMER.CREATE.OBJ_policies.*.$O.policies.>",
	"$JS.API.CONSUMER.MSG.NEXT.OBJ_policies.*",
	"$JS.API.CONSUMER.DELETE.OBJ_policies.*",
]

# What it may request of others: a granted action `<agent>.<verb>` is a task or a call of that agent. Names of three
# parts are answers, and what an agent emits under its own name is not a request.
requested(registry, request) := array.concat(
	[subject |
		some action, granted in object.get(registry.agents, request.subject.id, {"actions": {}}).actions
		granted == true
		count(split(action, ".")) == 2
		some subject in [
			sprintf("task.%v", [action]),
			sprintf("task.%v.*", [action]),
			sprintf("call.%v", [action]),
		]
	],
	[one.subject |
		some one in request.context.own_subjects
		may_publish(registry, request, one)
	],
)

# Whom it may tell about work, to cancel it for instance: every agent that it may ask for something.
told(registry, request, what) := array.concat(
	[sprintf("control.%v.%v", [agent, what]) | some agent in agents_asked(registry, request)],
	[sprintf("control.{%v}.%v", [owner, what]) | some owner in owners_asked(registry, request)],
)

# Approvals come from who mints user contexts, which has a role of its own; from others no agent takes any.
approvals(registry, role, request) := subjects if {
	object.get(role, "approves", false) == true
	subjects := told(registry, request, "approve")
} else := []

# Whom it may ask to send something later: each agent whose `<agent>._schedule` it is granted, itself included.
schedules(registry, request) := [sprintf("control.%v.schedule", [split(action, ".")[0]]) |
	some action, granted in object.get(registry.agents, request.subject.id, {"actions": {}}).actions
	granted == true
	endswith(action, "._schedule")
	count(split(action, ".")) == 2
]

agents_asked(registry, request) := {split(action, ".")[0] |
	some action, granted in object.get(registry.agents, request.subject.id, {"actions": {}}).actions
	granted == true
	count(split(action, ".")) == 2
}

owners_asked(registry, request) := {one.owner |
	some one in request.context.own_subjects
	one.kind in ["task", "call"]
	registry.agents[request.subject.id].actions[one.action] == true
}

may_publish(registry, request, own_subject) if {
	own_subject.kind == "event"
	own_subject.owner == request.subject.id
} else if {
	own_subject.kind in ["task", "call"]
	registry.agents[request.subject.id].actions[own_subject.action] == true
} else := false

# Whom it may answer: every agent that is granted one of its actions. Statuses go to the requester of the task, replies
# to the part of an inbox that is reserved for them.
answers(registry, request) := [subject |
	some caller, granted in callers(registry, request)
	granted == true
	some subject in [sprintf("status.{%v}.*", [caller]), sprintf("_INBOX.{%v}.reply.*.*", [caller])]
]

# Searching all grants takes time in their number: a large registry lists callers by agent.
callers(registry, request) := registry.callers[request.subject.properties.token] if {
	registry.callers[request.subject.properties.token]
} else := found if {
	of_scheme := {caller: true | some caller in asking(registry, request)}
	of_own_subjects := {caller: true | some caller in asking_for_own_subjects(registry, request)}
	found := object.union(of_scheme, of_own_subjects)
}

asking(registry, request) := {caller |
	verbs := sprintf("%v.", [request.subject.properties.token])
	some caller, agent in registry.agents
	some action, granted in agent.actions
	startswith(action, verbs)
	granted == true
	count(split(action, ".")) == 2
}

asking_for_own_subjects(registry, request) := {caller |
	some one in request.context.own_subjects
	one.owner == request.subject.id
	some caller, agent in registry.agents
	agent.actions[one.action] == true
}

# An own task subject has a consumer to itself, whose name the settings derive.
owned_tasks(request) := [subject |
	some one in request.context.own_subjects
	one.kind == "task"
	one.owner == request.subject.id
	some subject in [
		sprintf("$JS.API.CONSUMER.CREATE.TASKS.%v.%v", [one.durable, one.subject]),
		sprintf("$JS.API.CONSUMER.INFO.TASKS.%v", [one.durable]),
		sprintf("$JS.API.CONSUMER.DELETE.TASKS.%v", [one.durable]),
		sprintf("$JS.API.CONSUMER.MSG.NEXT.TASKS.%v", [one.durable]),
		sprintf("$JS.ACK.TASKS.%v.>", [one.durable]),
	]
]
