# METADATA
# title: Who may approve
# description: Decides one verdict of a person on a message that waits as the library does, by the registry alone.
package sealbus.approval

import data.sealbus.lib.approvals

# METADATA
# entrypoint: true
decision := decide(input)

decide(request) := approvals.decided("starter", request, {})
