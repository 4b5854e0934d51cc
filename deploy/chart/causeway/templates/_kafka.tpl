{{- /*
How Kafka is reached: JSON of {brokers, tls, ca, clientCertificate, sasl, oauth}, with what Strimzi's Secrets give filled in
where the values say nothing. `root`; `given`: the block of values.
*/ -}}
{{- define "causeway.kafka" -}}
{{- $values := .root.Values -}}
{{- $strimzi := $values.strimzi -}}
{{- $kafka := deepCopy .given -}}
{{- $brokers := dig "kafka" "brokers" list $values.config -}}
{{- if and $strimzi.enabled $strimzi.cluster -}}
{{- if not $brokers -}}
{{- $brokers = list (printf "%s-kafka-bootstrap.%s.svc:%d" $strimzi.cluster (include "causeway.strimziNamespace" .root) (int $strimzi.listenerPort)) -}}
{{- end -}}
{{- if eq (include "causeway.strimziNamespace" .root) .root.Release.Namespace -}}
{{- if and $strimzi.listenerTLS (not (include "causeway.given" $kafka.ca)) -}}
{{- $_ := set $kafka "ca" (dict "secretName" (printf "%s-cluster-ca-cert" $strimzi.cluster) "key" "*") -}}
{{- end -}}
{{- if and $strimzi.user.enabled (not $kafka.clientCertificate.secretName) (not $kafka.sasl.mechanism) (not (include "causeway.oauth" $kafka.oauth)) -}}
{{- $user := include "causeway.strimziUser" .root -}}
{{- if eq $strimzi.user.authentication "tls" -}}
{{- $_ := set $kafka "clientCertificate" (dict "secretName" $user "certificateKey" "user.crt" "privateKeyKey" "user.key") -}}
{{- else -}}
{{- $_ := set $kafka "sasl" (dict "mechanism" "SCRAM-SHA-512" "username" $user "secretName" $user "passwordKey" "password") -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $_ := set $kafka "brokers" $brokers -}}
{{- toJson $kafka -}}
{{- end -}}

{{- /* The same of the setup Job: `setup.kafka` over `kafka`. */ -}}
{{- define "causeway.setupKafka" -}}
{{- $given := mustMergeOverwrite (deepCopy .Values.kafka) (deepCopy .Values.setup.kafka) -}}
{{- include "causeway.kafka" (dict "root" . "given" $given) -}}
{{- end -}}

{{- /* The properties of `[kafka.client]` that follow from it: JSON. */ -}}
{{- define "causeway.kafkaClient" -}}
{{- $client := dict -}}
{{- $tls := .tls -}}
{{- if include "causeway.given" .ca -}}
{{- $tls = true -}}
{{- $_ := set $client "ssl.ca.location" (ternary "/etc/causeway/kafka-ca" "/etc/causeway/kafka-ca/ca.crt" (eq .ca.key "*")) -}}
{{- end -}}
{{- if .clientCertificate.secretName -}}
{{- $tls = true -}}
{{- $_ := set $client "ssl.certificate.location" "/etc/causeway/kafka-client/tls.crt" -}}
{{- $_ := set $client "ssl.key.location" "/etc/causeway/kafka-client/tls.key" -}}
{{- end -}}
{{- if .sasl.mechanism -}}
{{- $_ := set $client "sasl.mechanism" .sasl.mechanism -}}
{{- $_ := set $client "sasl.username" .sasl.username -}}
{{- $_ := set $client "sasl.password_file" "/etc/causeway/kafka-sasl/password" -}}
{{- end -}}
{{- $oauth := include "causeway.oauth" .oauth -}}
{{- with .oauth -}}
{{- if .projectedToken.audience -}}
{{- $_ := set $client "sasl.oauthbearer.token_file" "/etc/causeway/kafka-token/token" -}}
{{- end -}}
{{- if .tokenEndpoint -}}
{{- $_ := set $client "sasl.oauthbearer.token.endpoint.url" .tokenEndpoint -}}
{{- $_ := set $client "sasl.oauthbearer.client.id" .clientId -}}
{{- $_ := set $client "sasl.oauthbearer.client.secret_file" "/etc/causeway/kafka-oauth/client-secret" -}}
{{- if .scope -}}
{{- $_ := set $client "sasl.oauthbearer.scope" .scope -}}
{{- end -}}
{{- if include "causeway.given" .ca -}}
{{- $_ := set $client "https.ca.location" "/etc/causeway/kafka-oauth-ca/ca.crt" -}}
{{- end -}}
{{- end -}}
{{- if $oauth -}}
{{- $_ := set $client "sasl.mechanism" "OAUTHBEARER" -}}
{{- if .extensions -}}
{{- $_ := set $client "sasl.oauthbearer.extensions" .extensions -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $sasl := or .sasl.mechanism $oauth | empty | not -}}
{{- if or $tls $sasl -}}
{{- $_ := set $client "security.protocol" (ternary (ternary "sasl_ssl" "sasl_plaintext" $tls) "ssl" $sasl) -}}
{{- end -}}
{{- toJson $client -}}
{{- end -}}

{{- /* Not empty when Kafka is told a token (SASL/OAUTHBEARER). */ -}}
{{- define "causeway.oauth" -}}
{{- if or .tokenEndpoint .projectedToken.audience -}}oauth{{- end -}}
{{- end -}}

{{- /* Every topic that the bridge writes to: JSON list. The same rule as the bridge's own (src/feed.rs). */ -}}
{{- define "causeway.topics" -}}
{{- $config := .Values.config -}}
{{- $topics := list -}}
{{- $feeds := $config.feeds | default dict -}}
{{- range $label := concat (list "activity" "journey" "queue" "other") (keys $feeds | sortAlpha) | uniq -}}
{{- $feed := get $feeds $label | default dict -}}
{{- $topics = append $topics ($feed.topic | default (printf "asapp.%s" $label)) -}}
{{- range $type, $topic := $feed.event_types | default dict -}}
{{- $topics = append $topics $topic -}}
{{- end -}}
{{- end -}}
{{- $topics = append $topics (dig "dead_letter" "topic" "asapp.dead-letter" $config) -}}
{{- $topics | uniq | toJson -}}
{{- end -}}

{{- /* The `message.max.bytes` of the producer, which every topic must take: as given, or what the largest body needs. */ -}}
{{- define "causeway.messageBytes" -}}
{{- $given := dig "kafka" "client" "message.max.bytes" "" .Values.config -}}
{{- if $given -}}
{{- int64 $given -}}
{{- else -}}
{{- max 1000000 (add (include "causeway.number" (list . "ingress" "body_bytes_max") | int64) 16384) -}}
{{- end -}}
{{- end -}}

{{- define "causeway.strimziNamespace" -}}
{{- .Values.strimzi.namespace | default .Release.Namespace -}}
{{- end -}}

{{- define "causeway.strimziUser" -}}
{{- .Values.strimzi.user.name | default (include "causeway.fullname" .) -}}
{{- end -}}

{{- define "causeway.strimziApiVersion" -}}
{{- if .Values.strimzi.apiVersion -}}
{{- .Values.strimzi.apiVersion -}}
{{- else if and (.Capabilities.APIVersions.Has "kafka.strimzi.io/v1beta2") (not (.Capabilities.APIVersions.Has "kafka.strimzi.io/v1")) -}}
kafka.strimzi.io/v1beta2
{{- else -}}
kafka.strimzi.io/v1
{{- end -}}
{{- end -}}
