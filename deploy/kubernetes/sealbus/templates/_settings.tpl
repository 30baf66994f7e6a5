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
{{- range $name := concat (list "shop-web") (keys .Values.agents) }}
{{- $_ := set $callers (printf "spiffe://%s/agent/%s" $.Values.trustDomain $name) (dict "authz" true) }}
{{- end }}
{{- $callers | toJson }}
{{- end }}
