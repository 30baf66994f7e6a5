# What OPA's own API may be asked, and by whom. OPA evaluates data.system.authz.allow before each request
# (--authorization=basic); anything but true is answered with 401. The client's certificate chain was verified in the
# handshake (--authentication=tls), against the bundle of one trust domain.
#
# Questions only: a workload may POST the questions that callers/data.json grants its SPIFFE ID. No rule here lets
# anybody read or write policies or data, evaluate a query of its own, or see how a decision was made.
package system.authz

default allow := false

allow if {
	input.method == "POST"
	["v1", "data", "sealbus", kind, rule] = input.path
	granted := rules[kind][rule]
	every name, _ in input.params { parameters[name] }
	data.system.callers[caller][granted] == true
}

# Health and metrics, for whoever reaches the diagnostic address: the other address lets nobody in without a certificate.
allow if {
	input.method == "GET"
	diagnostics[input.path]
	not input.client_certificates
}

diagnostics := {["health"], ["metrics"]}

# What a caller needs for each question: who asks about messages asks about their approvals.
rules := {
	"authz": {"decision": "authz", "batch": "authz"},
	"approval": {"decision": "authz"},
	"connect": {"decision": "connect"},
}

parameters := {"provenance": true, "strict-builtin-errors": true}

# The SPIFFE ID of the client: the one URI of its certificate, the first of the chain that it sent. OPA gives URIs in
# parts; a form that would not be put together again as it was is no SPIFFE ID (X509-SVID.md section 2).
caller := sprintf("spiffe://%s%s", [uri.Host, uri.Path]) if {
	certificate := input.client_certificates[0]
	certificate.IsCA == false
	count(certificate.URIs) == 1
	uri := certificate.URIs[0]
	uri.Scheme == "spiffe"
	every part in ["Opaque", "RawPath", "RawQuery", "Fragment", "RawFragment"] { uri[part] == "" }
	uri.User == null
	uri.ForceQuery == false
	uri.Host != ""
	startswith(uri.Path, "/")
}
