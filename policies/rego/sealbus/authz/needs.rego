# What an action may be declared to need besides the grant: a user, reach over the resource, business hours.
# The first argument is the word of the declaration; one that is not known here denies.
package sealbus.authz

user_as_needed(need, user) if {
	need == "required"
	user.present == true
	user.id != ""
} else if {
	need == "none"
} else := false

# An owned item is for the user who owns it, and for those who manage the customer that it belongs to. Both attributes
# are what the consuming agent loaded from its own data.
within_reach(need, request, users) if {
	need == "owned"
	request.context.user.present == true
	request.context.user.id == request.resource.properties.owner
} else if {
	need == "owned"
	request.context.user.present == true
	users[request.context.user.id].customers[request.resource.properties.customer] == true
} else if {
	need == "any"
} else := false

# A region's offset is fixed, because two engines carry time zone tables of different ages, and because a decision that
# is replayed years later must come out the same: summer time is a change of data.
# Arrays compare element by element, so that at [18, 0, 0] a region that closes at [18, 0] is closed.
within_hours(need, request, regions) if {
	need == true
	region := regions[request.resource.properties.region]
	local := time.parse_rfc3339_ns(request.context.time) + (region.utc_offset_minutes * 60000000000)
	region.weekdays[time.weekday(local)] == true
	clock := time.clock(local)
	region.open <= clock
	clock < region.close
} else if {
	need == false
} else := false
