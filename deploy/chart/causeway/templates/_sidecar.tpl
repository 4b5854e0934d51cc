{{- /*
For pods of your own, in a chart that has this one as a dependency (deploy/chart/examples/sidecar):

  template:
    metadata:
      annotations:
        {{- include "causeway.sidecar.annotations" .Subcharts.causeway | nindent 8 }}
    spec:
      terminationGracePeriodSeconds: {{ include "causeway.sidecar.graceSeconds" (dict "causeway" .Subcharts.causeway "main" 30) }}
      initContainers:
        {{- include "causeway.sidecar.container" .Subcharts.causeway | nindent 8 }}
      volumes:
        {{- include "causeway.sidecar.volumes" .Subcharts.causeway | nindent 8 }}
*/ -}}

{{- /* The bridge as a native sidecar: it starts before the pod's containers and ends after them. */ -}}
{{- define "causeway.sidecar.container" -}}
- {{ include "causeway.container" (dict "root" . "sidecar" true) | nindent 2 | trim }}
{{- end -}}

{{- define "causeway.sidecar.volumes" -}}
{{- include "causeway.bridgeVolumes" . | trim -}}
{{- end -}}

{{- /* Rolls your pods when the configuration changes. */ -}}
{{- define "causeway.sidecar.annotations" -}}
checksum/causeway: {{ include "causeway.configChecksum" . }}
{{- end -}}

{{- /* preStop runs while the pod's containers stop, `main` seconds at most; the drain begins after both. */ -}}
{{- define "causeway.sidecar.graceSeconds" -}}
{{- $before := max (int64 .main) (int64 .causeway.Values.shutdown.endpointsSeconds) -}}
{{- add $before (include "causeway.drainSeconds" .causeway | int64) -}}
{{- end -}}
