{{- /* `causeway.toml`: the values' `config`, and what the chart adds. `root`; `kafka` as of `causeway.kafka`. */ -}}
{{- define "causeway.toml" -}}
{{- $values := .root.Values -}}
{{- $config := deepCopy $values.config -}}
{{- range $section := list "ingress" "admin" "kafka" -}}
{{- $_ := set $config $section (get $config $section | default dict) -}}
{{- end -}}

{{- $_ := set $config.ingress "listen" (printf "%s:%d" $values.listenAddress (int $values.ports.events)) -}}
{{- $_ := set $config.admin "listen" (printf "%s:%d" $values.listenAddress (int $values.ports.admin)) -}}
{{- $tls := $config.ingress.tls | default dict -}}
{{- $_ := set $tls "certificate" "/etc/causeway/tls/tls.crt" -}}
{{- $_ := set $tls "private_key" "/etc/causeway/tls/tls.key" -}}
{{- $_ := set $tls "client_ca" "/etc/causeway/client-ca/ca.crt" -}}
{{- if include "causeway.given" $values.tls.crl -}}
{{- $_ := set $tls "crl" "/etc/causeway/crl/crl.pem" -}}
{{- end -}}
{{- $_ := set $config.ingress "tls" $tls -}}

{{- $_ := set $config.kafka "brokers" .kafka.brokers -}}
{{- $client := merge (include "causeway.kafkaClient" .kafka | fromJson) ($config.kafka.client | default dict) -}}
{{- $bytes := include "causeway.messageBytes" .root | int64 -}}
{{- if ne $bytes 1000000 -}}
{{- $_ := set $client "message.max.bytes" $bytes -}}
{{- end -}}
{{- $_ := set $config.kafka "client" $client -}}

{{- if include "causeway.given" $values.registry.ca -}}
{{- $_ := set $config.registry "ca" "/etc/causeway/registry-ca/ca.crt" -}}
{{- end -}}
{{- if $values.registry.password.secretName -}}
{{- $_ := set $config.registry "password_file" "/etc/causeway/registry/password" -}}
{{- end -}}
{{- if $values.registry.token.secretName -}}
{{- $_ := set $config.registry "token_file" "/etc/causeway/registry-token/token" -}}
{{- end -}}
{{- if $values.registry.clientCertificate.secretName -}}
{{- $_ := set $config.registry "certificate" "/etc/causeway/registry-client/tls.crt" -}}
{{- $_ := set $config.registry "private_key" "/etc/causeway/registry-client/tls.key" -}}
{{- end -}}

{{- include "causeway.wholeNumbers" $config -}}
{{- toToml $config -}}
{{- end -}}

{{- /* YAML's numbers come as floats, which `toToml` would write as 921600.0: whole ones become integers, in place. What is null goes. */ -}}
{{- define "causeway.wholeNumbers" -}}
{{- range $key, $value := . -}}
{{- if kindIs "map" $value -}}
{{- include "causeway.wholeNumbers" $value -}}
{{- else if kindIs "invalid" $value -}}
{{- $_ := unset $ $key -}}
{{- else if and (kindIs "float64" $value) (eq (floor $value) $value) -}}
{{- $_ := set $ $key (int64 $value) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* The bridge's defaults that the pod's shape follows from (src/config/keys.rs; `.ci/chart` compares what follows). */ -}}
{{- define "causeway.defaults" -}}
sender: {timeout_ms: 5000}
ingress: {in_flight_max: 16384, queue_bytes_max: 268435456, body_bytes_max: 921600, connections_max: 16384}
dedupe: {bytes_max: 67108864}
{{- end -}}

{{- /* A number of the configuration, or its default: (list root section key). */ -}}
{{- define "causeway.number" -}}
{{- $default := dig (index . 1) (index . 2) 0 (include "causeway.defaults" . | fromYaml) -}}
{{- $section := get (index . 0).Values.config (index . 1) | default dict -}}
{{- $given := get $section (index . 2) -}}
{{- kindIs "invalid" $given | or (eq (toString $given) "") | ternary $default $given | int64 -}}
{{- end -}}

{{- /* D in milliseconds: when a held request is answered at the latest. */ -}}
{{- define "causeway.answerByMs" -}}
{{- $timeout := include "causeway.number" (list . "sender" "timeout_ms") | int64 -}}
{{- sub $timeout (max 250 (div $timeout 10)) -}}
{{- end -}}

{{- define "causeway.drainMs" -}}
{{- $given := dig "ingress" "drain_ms_max" nil .Values.config -}}
{{- if kindIs "invalid" $given -}}
{{- add (include "causeway.answerByMs" . | int64) 5000 -}}
{{- else -}}
{{- int64 $given -}}
{{- end -}}
{{- end -}}

{{- /* From SIGTERM to the exit, in seconds. */ -}}
{{- define "causeway.drainSeconds" -}}
{{- add (div (add (include "causeway.drainMs" . | int64) 999) 1000) (int64 .Values.shutdown.marginSeconds) -}}
{{- end -}}

{{- /* From a pod's deletion to the exit, in seconds. */ -}}
{{- define "causeway.graceSeconds" -}}
{{- add (int64 .Values.shutdown.endpointsSeconds) (include "causeway.drainSeconds" . | int64) -}}
{{- end -}}

{{- /* Bytes that the bridge can take at all its limits: the sum that `causeway check` shows (src/cli/check/budget.rs). */ -}}
{{- define "causeway.memoryBytes" -}}
{{- $feeds := concat (list "activity" "journey" "queue" "other") (keys (.Values.config.feeds | default dict)) | uniq | len -}}
{{- $queue := include "causeway.number" (list . "ingress" "queue_bytes_max") | int64 -}}
{{- $dedupe := include "causeway.number" (list . "dedupe" "bytes_max") | int64 -}}
{{- $connections := mul (include "causeway.number" (list . "ingress" "connections_max") | int64) 49152 -}}
{{- $streams := mul (include "causeway.number" (list . "ingress" "in_flight_max") | int64) (add $feeds 1) -}}
{{- $requests := mul (max $streams 400) 4096 -}}
{{- div (mul (add 67108864 $queue $dedupe $connections $requests) 11) 10 -}}
{{- end -}}

{{- /* The same as a quantity, rounded up. */ -}}
{{- define "causeway.memory" -}}
{{- printf "%dMi" (div (add (include "causeway.memoryBytes" . | int64) 1048575) 1048576) -}}
{{- end -}}

{{- /* Bytes of a quantity such as 2Gi, 1500M or 2e9: (list value's-name quantity). */ -}}
{{- define "causeway.bytes" -}}
{{- $units := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- $text := index . 1 | toString -}}
{{- $unit := regexFind "[A-Za-z]+$" $text -}}
{{- if not (hasKey $units $unit) -}}
{{- fail (printf "%s is %q: write it as in 2Gi or 1500Mi" (index . 0) $text) -}}
{{- end -}}
{{- mulf (float64 (trimSuffix $unit $text)) (get $units $unit) | floor | int64 -}}
{{- end -}}

{{- /* Thousandths of a core of a quantity such as 2, 0.5 or 500m: (list value's-name quantity). */ -}}
{{- define "causeway.millicores" -}}
{{- $text := index . 1 | toString -}}
{{- if regexMatch "[A-Za-ln-z]$" $text -}}
{{- fail (printf "%s is %q: write it as in 2 or 500m" (index . 0) $text) -}}
{{- end -}}
{{- mulf (float64 (trimSuffix "m" $text)) (ternary 1 1000 (hasSuffix "m" $text)) | ceil | int64 -}}
{{- end -}}

{{- /* The ConfigMap's content: JSON. */ -}}
{{- define "causeway.configFiles" -}}
{{- $kafka := include "causeway.kafka" (dict "root" . "given" .Values.kafka) | fromJson -}}
{{- $files := merge (dict "causeway.toml" (include "causeway.toml" (dict "root" . "kafka" $kafka))) .Values.schemas -}}
{{- if .Values.setup.kafka -}}
{{- $_ := set $files "setup.toml" (include "causeway.toml" (dict "root" . "kafka" (include "causeway.setupKafka" . | fromJson))) -}}
{{- end -}}
{{- toJson $files -}}
{{- end -}}

{{- /* The checksum whose change rolls the bridges: without the setup Job's configuration, and without certificates, CAs and CRLs, which the bridge takes up while it runs. */ -}}
{{- define "causeway.configChecksum" -}}
{{- omit (include "causeway.configFiles" . | fromJson) "setup.toml" | toJson | sha256sum -}}
{{- end -}}
