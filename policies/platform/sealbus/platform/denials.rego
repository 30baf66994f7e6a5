# METADATA
# title: The platform above its teams
# description: |
#   Reasons to deny a request, whatever the team that owns its action decides; an empty array if there are none. The
#   platform can only deny, never allow. Undefined, which is the result for an incomplete request, denies too.
package sealbus.platform

denials(request) := words if {
	revoked := data.sealbus.registry.revoked
	user := request.context.user
	conditions := {
		"revoked_agent": none_revoked(revoked.agents, request.context.chain),
		"revoked_client": none_revoked(revoked.clients, [user.client]),
		"revoked_session": none_revoked(revoked.sessions, [user.session]),
		"revoked_user": none_revoked(revoked.users, [user.id]),
	}
	words := sort([word | some word, holds in conditions; not holds])
}

none_revoked(revoked, ids) if {
	every id in ids {
		object.get(revoked, id, false) == false
	}
} else := false
