{{- define "gopulse.labels" -}}
app.kubernetes.io/name: gopulse
{{- end }}

{{- define "gopulse.metadata" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{ include "gopulse.labels" . }}
{{- end }}

{{- define "gopulse.metricsApi.metadata" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/name: gopulse-metrics-api
{{- end }}

{{- define "gopulse.metricsApi.config" -}}
log_json: true
register: {{ toJson .Values.metricsApi.register }}
{{- if .Values.metricsApi.keda }}
keda_address: "[::]:9443"
{{- end }}
{{- with .Values.metricsApi.metrics }}
metrics:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.metricsApi.extra }}
{{ toYaml . }}
{{- end }}
{{- end }}
