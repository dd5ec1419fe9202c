{{- define "gopulse.labels" -}}
app.kubernetes.io/name: gopulse
{{- end }}

{{- define "gopulse.metadata" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{ include "gopulse.labels" . }}
{{- end }}
