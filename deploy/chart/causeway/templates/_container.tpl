{{- /* The container of the bridge, without its list dash: the Deployment's, and with `sidecar` an initContainer that goes on running. */ -}}
{{- define "causeway.container" -}}
{{- $root := .root -}}
{{- $values := $root.Values -}}
name: causeway
image: {{ include "causeway.image" $root }}
imagePullPolicy: {{ $values.image.pullPolicy }}
{{- if .sidecar }}
restartPolicy: Always
{{- end }}
args: [serve]
{{- include "causeway.environment" (dict "root" $root "file" "causeway.toml") | nindent 0 }}
ports:
  - name: events
    containerPort: {{ $values.ports.events }}
    protocol: TCP
  - name: admin
    containerPort: {{ $values.ports.admin }}
    protocol: TCP
# Alive from the first moment, ready once topics and schemas are there. A Kafka outage changes neither:
# a load balancer would then refuse what the bridge can hold.
livenessProbe:
  httpGet:
    path: /livez
    port: admin
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
readinessProbe:
  httpGet:
    path: /readyz
    port: admin
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 2
lifecycle:
  # Until nobody sends new connections here any more; only then SIGTERM, which begins the drain.
  preStop:
    sleep:
      seconds: {{ $values.shutdown.endpointsSeconds }}
resources:
  {{- include "causeway.resources" $root | nindent 2 }}
securityContext:
  {{- include "causeway.containerSecurity" $root | nindent 2 }}
volumeMounts:
  {{- include "causeway.volumeMounts" (dict "root" $root "kafka" (include "causeway.kafka" (dict "root" $root "given" $values.kafka) | fromJson) "ingress" true) | trim | nindent 2 }}
  {{- with $values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- /* `root`; `file`: which configuration. */ -}}
{{- define "causeway.environment" -}}
env:
  - name: CAUSEWAY_CONFIG
    value: /etc/causeway/config/{{ .file }}
  - name: CAUSEWAY_LOG
    value: {{ .root.Values.logLevel | quote }}
  - name: CAUSEWAY_LOG_FORMAT
    value: json
  {{- with .root.Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .root.Values.extraEnvFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "causeway.resources" -}}
{{- $given := .Values.resources -}}
{{- $memory := $given.limits.memory | default (include "causeway.memory" .) -}}
requests:
  cpu: {{ $given.requests.cpu | quote }}
  memory: {{ $given.requests.memory | default $memory }}
limits:
  {{- with $given.limits.cpu }}
  cpu: {{ . | quote }}
  {{- end }}
  memory: {{ $memory }}
{{- end -}}

{{- /* Pod Security "restricted" asks for all of it on the container: so a sidecar needs nothing of its pod. */ -}}
{{- define "causeway.containerSecurity" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
readOnlyRootFilesystem: true
runAsNonRoot: true
{{- with .Values.runAsUser }}
runAsUser: {{ . }}
runAsGroup: {{ . }}
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- /* The pod's part of what Deployment, Job and test pod share. */ -}}
{{- define "causeway.podBasics" -}}
serviceAccountName: {{ include "causeway.serviceAccountName" . }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  {{- with .Values.runAsUser }}
  runAsUser: {{ . }}
  runAsGroup: {{ . }}
  {{- end }}
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
