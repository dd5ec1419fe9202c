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

{{- /* Refuses to make APIServices of a group that another adapter has any version of: the HPA controller asks one of them alone. */}}
{{- define "gopulse.metricsApi.mayTake" -}}
{{- $root := .root }}
{{- $group := .group }}
{{- range (lookup "apiregistration.k8s.io/v1" "APIService" "" "").items }}
{{- if eq .spec.group $group }}
{{- $service := .spec.service | default dict }}
{{- if or (ne (default "" $service.name) "gopulse-metrics-api") (ne (default "" $service.namespace) $root.Release.Namespace) }}
{{- fail (printf "%s belongs to Service %s/%s: set metricsApi.apiServices to false for %s, or remove that adapter first" .metadata.name (default "" $service.namespace) (default "" $service.name) $group) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
