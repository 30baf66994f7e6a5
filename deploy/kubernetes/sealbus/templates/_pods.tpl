{{/* What the pods of sealbus have alike. A pod is described by a dict of `root` (the chart's context), `name`, and more. */}}

{{- define "sealbus.labels" -}}
app.kubernetes.io/part-of: sealbus
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "sealbus.selector" -}}
{app.kubernetes.io/name: {{ .name }}, app.kubernetes.io/instance: {{ .root.Release.Name }}}
{{- end }}

{{/* `kind` is agent or server: which of the ClusterSPIFFEIDs gives the pod its identity. */}}
{{- define "sealbus.pod-metadata" -}}
labels:
  {{- include "sealbus.labels" .root | nindent 2 }}
  app.kubernetes.io/name: {{ .name }}
  sealbus: {{ .kind }}
annotations:
  # Pods are replaced when what they read at their start changes.
  checksum/settings: {{ printf "%s%s%s%s" (include "sealbus.settings" .root) (toYaml .root.Values.policy.keys) .root.Values.opa.config (include "sealbus.callers" .root) | sha256sum }}
{{- end }}

{{/* SPIRE knows a pod by its service account; nobody needs the token of one. */}}
{{- define "sealbus.pod-identity" -}}
serviceAccountName: {{ .account | default .name }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
securityContext:
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

{{- define "sealbus.environment" -}}
- {name: SEALBUS_CONFIG, value: /etc/sealbus/sealbus.toml}
- {name: SPIFFE_ENDPOINT_SOCKET, value: "unix:///spiffe-workload-api/{{ .Values.spire.socket }}"}
- {name: SEALBUS_NATS, value: {{ .Values.nats.url | quote }}}
- {name: SEALBUS_POLICY__BUNDLE, value: {{ .Values.policy.bucket | quote }}}
- {name: SEALBUS_POLICY__CACHE, value: /var/lib/sealbus/policy}
- {name: SEALBUS_POLICY__KEYS, value: "{{ range $index, $name := keys .Values.policy.keys | sortAlpha }}{{ if $index }},{{ end }}/etc/sealbus-keys/{{ $name }}{{ end }}"}
- {name: SEALBUS_CLIENT__TOKEN_SERVICE, value: "https://edge.{{ .Release.Namespace }}.svc:8444"}
- {name: HOME, value: /tmp}
{{- end }}

{{/* How a process decides. */}}
{{- define "sealbus.engine" -}}
- {name: SEALBUS_POLICY__ENGINE, value: {{ .engine }}}
{{- if eq .engine "sidecar" }}
- {name: SEALBUS_POLICY__OPA, value: "unix:/run/opa/opa.sock"}
{{- else if eq .engine "central" }}
- {name: SEALBUS_POLICY__OPA, value: "https://opa.{{ .root.Release.Namespace }}.svc:8181"}
{{- end }}
{{- end }}

{{- define "sealbus.mounts" -}}
- {name: spiffe, mountPath: /spiffe-workload-api, readOnly: true}
- {name: settings, mountPath: /etc/sealbus, readOnly: true}
- {name: keys, mountPath: /etc/sealbus-keys, readOnly: true}
- {name: state, mountPath: /var/lib/sealbus}
- {name: tmp, mountPath: /tmp}
{{- end }}

{{- define "sealbus.volumes" -}}
- name: spiffe
  csi: {driver: {{ .Values.spire.csiDriver }}, readOnly: true}
- name: settings
  configMap: {name: sealbus-settings}
- name: keys
  configMap: {name: sealbus-policy-keys}
- name: state
  emptyDir: {}
- name: tmp
  emptyDir: {medium: Memory, sizeLimit: 64Mi}
{{- end }}

{{/* Until it is well it is not bothered; a process that is not ready is not asked, and not killed for it. */}}
{{- define "sealbus.probes" -}}
startupProbe: {httpGet: {path: /healthz, port: health}, periodSeconds: 2, failureThreshold: 90}
livenessProbe: {httpGet: {path: /healthz, port: health}, periodSeconds: 10, timeoutSeconds: 5}
readinessProbe: {httpGet: {path: /readyz, port: health}, periodSeconds: 2}
{{- end }}

{{- define "sealbus.container-rest" -}}
resources: {{- toYaml (.own | default (index .root.Values.resources (.resources | default "sealbus"))) | nindent 2 }}
securityContext: {{- include "sealbus.container-security" .root | nindent 2 }}
{{- end }}

{{/* Files of a secret are readable for their group, so that the pod's user can read them at all; who holds a signing key here
     refuses that. `files` are copied to where only the user can read them, in memory. */}}
{{- define "sealbus.private-keys" -}}
- name: keys
  image: {{ .root.Values.image }}
  imagePullPolicy: {{ .root.Values.imagePullPolicy }}
  command: [install, -m, "0400"{{ range .files }}, /etc/sealbus-secret/{{ . }}{{ end }}, /run/keys]
  {{- include "sealbus.container-rest" (merge (dict "resources" "small") .) | nindent 2 }}
  volumeMounts:
    - {name: secret, mountPath: /etc/sealbus-secret, readOnly: true}
    - {name: private-keys, mountPath: /run/keys}
{{- end }}

{{- define "sealbus.private-volumes" -}}
- name: secret
  secret: {secretName: {{ .secret }}, defaultMode: 0440}
- name: private-keys
  emptyDir: {medium: Memory, sizeLimit: 1Mi}
{{- end }}

{{/* The storage `claim` of each pod of the StatefulSet `name`, by its `values`. No upgrade changes its class: helm says so first. */}}
{{- define "sealbus.storage" -}}
{{- $class := .values.storageClassName -}}
{{- $name := .name -}}
{{- range lookup "apps/v1" "StatefulSet" .root.Release.Namespace $name | dig "spec" "volumeClaimTemplates" list }}
{{- if ne (.spec.storageClassName | default "") $class }}
{{- fail (printf "%s.storageClassName: the %s's storage has %q, which no upgrade changes" $name $name (.spec.storageClassName | default "")) }}
{{- end }}
{{- end -}}
volumeClaimTemplates:
  - metadata: {name: {{ .claim }}}
    spec:
      accessModes: [ReadWriteOnce]
      {{- with $class }}
      storageClassName: {{ . | quote }}
      {{- end }}
      resources: {requests: {storage: {{ .values.storage }}}}
{{- end }}
