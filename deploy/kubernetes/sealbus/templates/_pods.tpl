{{/* What every container of sealbus has alike. */}}

{{- define "sealbus.environment" -}}
- {name: SEALBUS_CONFIG, value: /etc/sealbus/sealbus.toml}
- {name: SPIFFE_ENDPOINT_SOCKET, value: "unix:///spiffe-workload-api/{{ .Values.spire.socket }}"}
- {name: SEALBUS_NATS, value: {{ .Values.nats | quote }}}
- {name: SEALBUS_POLICY__BUNDLE, value: {{ .Values.policy.bucket | quote }}}
- {name: SEALBUS_POLICY__CACHE, value: /var/lib/sealbus/policy}
- {name: SEALBUS_POLICY__KEYS, value: "{{ range $index, $name := keys .Values.policy.keys | sortAlpha }}{{ if $index }},{{ end }}/etc/sealbus/keys/{{ $name }}{{ end }}"}
- {name: SEALBUS_CLIENT__TOKEN_SERVICE, value: "https://edge.{{ .Release.Namespace }}.svc:8444"}
- {name: HOME, value: /tmp}
{{- end }}

{{- define "sealbus.mounts" -}}
- {name: spiffe, mountPath: /spiffe-workload-api, readOnly: true}
- {name: settings, mountPath: /etc/sealbus, readOnly: true}
- {name: keys, mountPath: /etc/sealbus/keys, readOnly: true}
- {name: state, mountPath: /var/lib/sealbus}
- {name: tmp, mountPath: /tmp}
{{- end }}

{{- define "sealbus.volumes" -}}
- name: spiffe
  csi: {driver: {{ .Values.spire.csiDriver }}, readOnly: true}
- name: settings
  configMap: {name: {{ .Release.Name }}-settings}
- name: keys
  configMap: {name: {{ .Release.Name }}-policy-keys}
- name: state
  emptyDir: {}
- name: tmp
  emptyDir: {medium: Memory, sizeLimit: 64Mi}
{{- end }}

{{- define "sealbus.pod-security" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "sealbus.container-security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "sealbus.probes" -}}
startupProbe: {httpGet: {path: /healthz, port: health}, periodSeconds: 1, failureThreshold: 60}
livenessProbe: {httpGet: {path: /healthz, port: health}, periodSeconds: 10}
readinessProbe: {httpGet: {path: /readyz, port: health}, periodSeconds: 2}
{{- end }}

{{/* What asks an OPA elsewhere: the central one, by name. */}}
{{- define "sealbus.central" -}}
- {name: SEALBUS_POLICY__ENGINE, value: central}
- {name: SEALBUS_POLICY__OPA, value: "https://opa.{{ .Release.Namespace }}.svc:8181"}
{{- end }}

{{- define "sealbus.labels" -}}
app.kubernetes.io/part-of: sealbus
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
