{{/* What every OPA is started with (policies/opa_arguments.py says why; a test compares). */}}
{{- define "sealbus.opa-rest" -}}
- --unix-socket-perm
- "600"
- --skip-version-check
- --optimize-store-for-read-speed
- --log-format
- json
- --log-level
- info
- --log-level-request
- debug
{{- end }}
