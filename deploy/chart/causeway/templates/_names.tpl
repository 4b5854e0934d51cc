{{- define "causeway.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- /* Short enough that the longest suffix, `-setup-` and a hash, stays a legal name. */ -}}
{{- define "causeway.fullname" -}}
{{- $name := include "causeway.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 47 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 47 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 47 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- /* Labels of all pods of the release. */ -}}
{{- define "causeway.releaseLabels" -}}
app.kubernetes.io/name: {{ include "causeway.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- /* Labels of the pods with a bridge. */ -}}
{{- define "causeway.selectorLabels" -}}
{{- if eq .Values.workload "sidecar" -}}
{{- toYaml .Values.sidecar.selectorLabels -}}
{{- else -}}
{{ include "causeway.releaseLabels" . }}
app.kubernetes.io/component: bridge
{{- end -}}
{{- end -}}

{{- /* The metadata of an object. `root`; `name`, default the full name; `component`; `namespace`; `labels`; `annotations`. */ -}}
{{- define "causeway.metadata" -}}
{{- $root := .root -}}
name: {{ .name | default (include "causeway.fullname" $root) }}
namespace: {{ .namespace | default $root.Release.Namespace }}
labels:
  {{- include "causeway.labels" . | nindent 2 }}
{{- with merge (dict) (.annotations | default dict) $root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "causeway.labels" -}}
{{- $root := .root -}}
{{- $labels := include "causeway.releaseLabels" $root | fromYaml -}}
{{- $_ := set $labels "app.kubernetes.io/component" (.component | default "bridge") -}}
{{- $_ := set $labels "app.kubernetes.io/version" $root.Chart.AppVersion -}}
{{- $_ := set $labels "app.kubernetes.io/managed-by" $root.Release.Service -}}
{{- $_ := set $labels "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_") -}}
{{- toYaml (merge $labels (.labels | default dict) $root.Values.commonLabels) -}}
{{- end -}}

{{- /* Without the chart's version: another one alone is no reason to roll. */ -}}
{{- define "causeway.podLabels" -}}
{{- $labels := include "causeway.releaseLabels" .root | fromYaml -}}
{{- $_ := set $labels "app.kubernetes.io/component" .component -}}
{{- toYaml (merge $labels .root.Values.podLabels .root.Values.commonLabels) -}}
{{- end -}}

{{- define "causeway.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest -}}
{{- else -}}
{{- printf "%s:%s" .repository (.tag | default $.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "causeway.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "causeway.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}
