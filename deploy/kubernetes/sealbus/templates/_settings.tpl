{{/* The settings that every process shares. With the values as they are it says what deploy/local/sealbus.toml says (a test). */}}
{{- define "sealbus.settings" -}}
{{- $domain := printf "spiffe://%s" .Values.trustDomain -}}
trust_domain = {{ .Values.trustDomain | quote }}
nats_ids = [{{ printf "%s/nats" $domain | quote }}]

[policy]
opa_ids = [{{ printf "%s/opa" $domain | quote }}]

[agents]
edge = {{ printf "%s/edge" $domain | quote }}
control = {{ printf "%s/control" $domain | quote }}

[context]
minters = [{{ printf "%s/edge" $domain | quote }}]
{{- if .Values.notary.origin }}

[trust]
notaries = [{{ printf "%s/agent/notary" $domain | quote }}]

[control.notary]
origin = {{ .Values.notary.origin | quote }}
{{- end }}

[streams]
replicas = {{ .Values.streams.replicas }}
{{- if .Values.streams.replicatedConsumers }}
replicated_consumers = true
{{- end }}

[streams.max_bytes]
{{- range $name, $size := .Values.streams.maxBytes }}
{{ $name }} = {{ $size | quote }}
{{- end }}

[edge]
actions = {{ concat .Values.edge.actions (ternary (list "console.*") (list) .Values.console.enabled) | uniq | toJson }}
{{- with .Values.settings }}

{{ . }}
{{- end }}
{{- end }}

{{/* Who may ask the central OPA, and whom it tells who may connect. */}}
{{- define "sealbus.callers" -}}
{{- $callers := dict (printf "spiffe://%s/edge" .Values.trustDomain) (dict "authz" true) (printf "spiffe://%s/control" .Values.trustDomain) (dict "authz" true "connect" true) -}}
{{- range $name := concat (list "shop-web") (include "sealbus.agent-names" . | fromJsonArray) }}
{{- $_ := set $callers (printf "spiffe://%s/agent/%s" $.Values.trustDomain $name) (dict "authz" true) }}
{{- end }}
{{- $callers | toJson }}
{{- end }}

{{/* The names of all agents, also of those that share a process with another. */}}
{{- define "sealbus.agent-names" -}}
{{- $names := keys .Values.agents -}}
{{- range $name, $agent := .Values.agents }}
{{- $names = concat $names (keys ($agent.further | default dict)) }}
{{- end }}
{{- $names | sortAlpha | toJson }}
{{- end }}

{{/* An agent runs in the pods of one entry: a name in two of them would be one agent with two programs. */}}
{{- define "sealbus.check-agents" -}}
{{- $names := include "sealbus.agent-names" . | fromJsonArray -}}
{{- if ne (len $names) (len (uniq $names)) }}
{{- fail (printf "agents: a name is there twice, as an entry or under further: %s" (join ", " $names)) }}
{{- end }}
{{- end }}
