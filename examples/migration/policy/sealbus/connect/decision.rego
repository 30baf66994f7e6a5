package sealbus.connect

import data.sealbus.lib.connections

decision := decide(input)

decide(request) := connections.decided("stock", request)
