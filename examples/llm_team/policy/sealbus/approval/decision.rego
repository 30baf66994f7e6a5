package sealbus.approval

import data.sealbus.lib.approvals

decision := decide(input)

decide(request) := approvals.decided("team", request, {})
