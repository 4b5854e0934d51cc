{{- /*
What is mounted, and where: JSON list of {name, secret | configMap | token, items}. Below /etc/causeway, a folder each; the
names of the files in it are always the same, whatever the keys in the Secret are called. Only these keys are mounted, but
for a Kafka CA of all keys: Strimzi keeps a CA and the one before it in one Secret, under names that change.
`root`; `kafka` as of `causeway.kafka`; `ingress`: whether the bridge itself runs there.
*/ -}}
{{- define "causeway.files" -}}
{{- $values := .root.Values -}}
{{- $name := include "causeway.fullname" .root -}}
{{- $files := list (dict "name" "config" "configMap" (printf "%s-config" $name)) -}}
{{- if .ingress -}}
{{- $files = append $files (dict "name" "tls" "secret" (include "causeway.tlsSecretName" .root) "items" (dict "tls.crt" "tls.crt" "tls.key" "tls.key")) -}}
{{- $files = append $files (include "causeway.trustFile" (dict "name" "client-ca" "given" $values.tls.clientCA "own" (printf "%s-trust" $name) "ownKey" "ca.crt" "file" "ca.crt") | fromJson) -}}
{{- if include "causeway.given" $values.tls.crl -}}
{{- $files = append $files (include "causeway.trustFile" (dict "name" "crl" "given" $values.tls.crl "own" (printf "%s-trust" $name) "ownKey" "crl.pem" "file" "crl.pem") | fromJson) -}}
{{- end -}}
{{- end -}}
{{- with .kafka -}}
{{- if include "causeway.given" .ca -}}
{{- $files = append $files (include "causeway.trustFile" (dict "name" "kafka-ca" "given" .ca "file" "ca.crt") | fromJson) -}}
{{- end -}}
{{- with .clientCertificate -}}
{{- if .secretName -}}
{{- $files = append $files (dict "name" "kafka-client" "secret" .secretName "items" (dict .certificateKey "tls.crt" .privateKeyKey "tls.key")) -}}
{{- end -}}
{{- end -}}
{{- with .sasl -}}
{{- if .secretName -}}
{{- $files = append $files (dict "name" "kafka-sasl" "secret" .secretName "items" (dict .passwordKey "password")) -}}
{{- end -}}
{{- end -}}
{{- with .oauth -}}
{{- if .secretName -}}
{{- $files = append $files (dict "name" "kafka-oauth" "secret" .secretName "items" (dict .secretKey "client-secret")) -}}
{{- end -}}
{{- if include "causeway.given" .ca -}}
{{- $files = append $files (include "causeway.trustFile" (dict "name" "kafka-oauth-ca" "given" .ca "file" "ca.crt") | fromJson) -}}
{{- end -}}
{{- if .projectedToken.audience -}}
{{- $files = append $files (dict "name" "kafka-token" "token" .projectedToken) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if include "causeway.given" $values.registry.ca -}}
{{- $files = append $files (include "causeway.trustFile" (dict "name" "registry-ca" "given" $values.registry.ca "file" "ca.crt") | fromJson) -}}
{{- end -}}
{{- with $values.registry.password -}}
{{- if .secretName -}}
{{- $files = append $files (dict "name" "registry" "secret" .secretName "items" (dict .key "password")) -}}
{{- end -}}
{{- end -}}
{{- with $values.registry.token -}}
{{- if .secretName -}}
{{- $files = append $files (dict "name" "registry-token" "secret" .secretName "items" (dict .key "token")) -}}
{{- end -}}
{{- end -}}
{{- with $values.registry.clientCertificate -}}
{{- if .secretName -}}
{{- $files = append $files (dict "name" "registry-client" "secret" .secretName "items" (dict .certificateKey "tls.crt" .privateKeyKey "tls.key")) -}}
{{- end -}}
{{- end -}}
{{- toJson $files -}}
{{- end -}}

{{- /* Not empty when a CA or CRL is given in any of its ways. */ -}}
{{- define "causeway.given" -}}
{{- if or .secretName .configMapName .pem -}}given{{- end -}}
{{- end -}}

{{- define "causeway.trustFile" -}}
{{- $file := dict "name" .name -}}
{{- if .given.secretName -}}
{{- $_ := set $file "secret" .given.secretName -}}
{{- else if .given.configMapName -}}
{{- $_ := set $file "configMap" .given.configMapName -}}
{{- end -}}
{{- if or .given.secretName .given.configMapName -}}
{{- if ne .given.key "*" -}}
{{- $_ := set $file "items" (dict .given.key .file) -}}
{{- end -}}
{{- else -}}
{{- $_ := set $file "configMap" .own -}}
{{- $_ := set $file "items" (dict .ownKey .file) -}}
{{- end -}}
{{- toJson $file -}}
{{- end -}}

{{- define "causeway.tlsSecretName" -}}
{{- if .Values.tls.certManager.enabled -}}
{{- printf "%s-tls" (include "causeway.fullname" .) -}}
{{- else -}}
{{- .Values.tls.secretName -}}
{{- end -}}
{{- end -}}

{{- /* Volumes of `causeway.files`. */ -}}
{{- define "causeway.volumes" -}}
{{- range include "causeway.files" . | fromJsonArray }}
- name: causeway-{{ .name }}
  {{- if .token }}
  projected:
    sources:
      - serviceAccountToken:
          path: token
          audience: {{ .token.audience | quote }}
          expirationSeconds: {{ int64 .token.expirationSeconds }}
  {{- else if .secret }}
  secret:
    secretName: {{ .secret }}
  {{- else }}
  configMap:
    name: {{ .configMap }}
  {{- end }}
    # r--r--r-- in decimal: not all readers of YAML take 0444 for octal
    defaultMode: 292
    {{- with .items }}
    items:
      {{- range $key, $path := . }}
      - key: {{ $key }}
        path: {{ $path }}
      {{- end }}
    {{- end }}
{{- end }}
{{- end -}}

{{- /* Whole folders, never subPath: the kubelet renews those only, and the bridge takes up what changed. */ -}}
{{- define "causeway.volumeMounts" -}}
{{- range include "causeway.files" . | fromJsonArray }}
- name: causeway-{{ .name }}
  mountPath: /etc/causeway/{{ .name }}
  readOnly: true
{{- end }}
{{- end -}}

{{- /* Volumes of a pod with a bridge, those of the values too. */ -}}
{{- define "causeway.bridgeVolumes" -}}
{{- include "causeway.volumes" (dict "root" . "kafka" (include "causeway.kafka" (dict "root" . "given" .Values.kafka) | fromJson) "ingress" true) }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}
