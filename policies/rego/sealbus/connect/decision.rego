# METADATA
# title: Who may connect to NATS
# description: Decides one connection as the library does, by the registry alone.
package sealbus.connect

import data.sealbus.lib.connections

# METADATA
# entrypoint: true
decision := decide(input)

decide(request) := connections.decided("starter", request)
