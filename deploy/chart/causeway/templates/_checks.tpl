{{- /* Refuses values that contradict each other, with a remedy; values.schema.json refuses misspelt ones. */ -}}
{{- define "causeway.checks" -}}
{{- include "causeway.checkKubernetes" . -}}
{{- include "causeway.checkRequired" . -}}
{{- include "causeway.checkKafka" . -}}
{{- include "causeway.checkConfig" . -}}
{{- include "causeway.checkShape" . -}}
{{- include "causeway.checkScaling" . -}}
{{- include "causeway.checkAround" . -}}
{{- end -}}

{{- /* Not `kubeVersion` in Chart.yaml: a helm built by `go install` takes every cluster that it does not ask for v1.20.0. */ -}}
{{- define "causeway.checkKubernetes" -}}
{{- $version := .Capabilities.KubeVersion.Version -}}
{{- if and (semverCompare "<1.30.0-0" $version) (ne $version "v1.20.0") -}}
{{- fail (printf "Kubernetes is %s: the chart needs 1.30, for native sidecars and for preStop's own sleep, as the image has no shell" $version) -}}
{{- end -}}
{{- end -}}

{{- define "causeway.checkRequired" -}}
{{- $values := .Values -}}
{{- if not (dig "ingress" "tls" "client_names" list $values.config) -}}
{{- fail "config.ingress.tls.client_names is required: name the senders that may post, each dns:NAME, uri:URI, cn:NAME or subject:DN, or [\"*\"] for any that the client CA signed" -}}
{{- end -}}
{{- $manager := $values.tls.certManager -}}
{{- if and $values.tls.secretName $manager.enabled -}}
{{- fail "tls.secretName and tls.certManager.enabled both give the server's certificate: keep one of the two" -}}
{{- end -}}
{{- if not (or $values.tls.secretName $manager.enabled) -}}
{{- fail "the bridge has no server certificate: set tls.secretName, or tls.certManager.enabled with an issuer" -}}
{{- end -}}
{{- if and $manager.enabled (not (and $manager.issuerRef.name $manager.dnsNames)) -}}
{{- fail "tls.certManager needs issuerRef.name and dnsNames: the names that ASAPP connects to" -}}
{{- end -}}
{{- include "causeway.checkOneSource" (list "tls.clientCA" $values.tls.clientCA) -}}
{{- if not (include "causeway.given" $values.tls.clientCA) -}}
{{- fail "the bridge has no CA to verify senders by: set tls.clientCA.secretName, .configMapName or .pem" -}}
{{- end -}}
{{- include "causeway.checkOneSource" (list "tls.crl" $values.tls.crl) -}}
{{- end -}}

{{- define "causeway.checkOneSource" -}}
{{- $given := index . 1 -}}
{{- if gt (list $given.secretName $given.configMapName $given.pem | compact | len) 1 -}}
{{- fail (printf "%s is given in more than one way: keep one of secretName, configMapName and pem" (index . 0)) -}}
{{- end -}}
{{- end -}}

{{- define "causeway.checkKafka" -}}
{{- $values := .Values -}}
{{- $strimzi := $values.strimzi -}}
{{- if and $strimzi.enabled (not $strimzi.cluster) -}}
{{- fail "strimzi.enabled needs strimzi.cluster: the name of the Kafka object" -}}
{{- end -}}
{{- $kafka := include "causeway.kafka" (dict "root" . "given" $values.kafka) | fromJson -}}
{{- if not $kafka.brokers -}}
{{- fail "config.kafka.brokers is required: name brokers to start from, each host:port (or set strimzi.enabled and strimzi.cluster)" -}}
{{- end -}}
{{- range $name, $given := dict "kafka.ca" $values.kafka.ca "registry.ca" $values.registry.ca "kafka.oauth.ca" $values.kafka.oauth.ca -}}
{{- include "causeway.checkOneSource" (list $name $given) -}}
{{- end -}}
{{- if eq $values.registry.ca.key "*" -}}
{{- fail "registry.ca.key names one key, in which all CAs of the registry stand; only kafka.ca.key may be \"*\"" -}}
{{- end -}}
{{- $setup := include "causeway.setupKafka" . | fromJson -}}
{{- range $name, $sasl := dict "kafka.sasl" $kafka.sasl "setup.kafka.sasl" $setup.sasl -}}
{{- $parts := list $sasl.mechanism $sasl.username $sasl.secretName | compact | len -}}
{{- if and (gt $parts 0) (lt $parts 3) -}}
{{- fail (printf "%s needs mechanism, username and secretName: set all three, or none" $name) -}}
{{- end -}}
{{- end -}}
{{- range $name, $given := dict "kafka" $kafka "setup.kafka" $setup -}}
{{- $oauth := $given.oauth -}}
{{- $parts := list $oauth.tokenEndpoint $oauth.clientId $oauth.secretName | compact | len -}}
{{- if and (gt $parts 0) (lt $parts 3) -}}
{{- fail (printf "%s.oauth needs tokenEndpoint, clientId and secretName: set all three, or none" $name) -}}
{{- end -}}
{{- if gt (list $oauth.tokenEndpoint $oauth.projectedToken.audience $given.sasl.mechanism | compact | len) 1 -}}
{{- fail (printf "%s says in more than one way who the bridge is: keep one of sasl.mechanism, oauth.tokenEndpoint and oauth.projectedToken.audience" $name) -}}
{{- end -}}
{{- end -}}
{{- if gt (list $values.registry.password.secretName $values.registry.token.secretName | compact | len) 1 -}}
{{- fail "registry.password and registry.token are two ways to say who the bridge is: keep one" -}}
{{- end -}}
{{- if and $strimzi.enabled (ne (include "causeway.strimziNamespace" .) .Release.Namespace) -}}
{{- if and $strimzi.listenerTLS (not (include "causeway.given" $values.kafka.ca)) (not $values.kafka.tls) -}}
{{- fail (printf "strimzi.namespace is %s, and a pod mounts no Secret of another namespace: copy %s-cluster-ca-cert to %s and name it as kafka.ca.secretName" $strimzi.namespace $strimzi.cluster .Release.Namespace) -}}
{{- end -}}
{{- if and $strimzi.user.enabled (not (or $values.kafka.clientCertificate.secretName $values.kafka.sasl.mechanism (include "causeway.oauth" $values.kafka.oauth))) -}}
{{- fail (printf "strimzi.namespace is %s, and a pod mounts no Secret of another namespace: copy the Secret of KafkaUser %s to %s and name it in kafka.clientCertificate or kafka.sasl, or set strimzi.user.enabled to false" $strimzi.namespace (include "causeway.strimziUser" .) .Release.Namespace) -}}
{{- end -}}
{{- end -}}
{{- if and $strimzi.enabled $strimzi.topics.enabled (or $values.setup.topics (dig "kafka" "create_topics" false $values.config)) -}}
{{- fail "topics would have two owners: keep one of strimzi.topics.enabled, setup.topics and config.kafka.create_topics" -}}
{{- end -}}
{{- if and $strimzi.enabled $strimzi.user.enabled (dig "kafka" "create_topics" false $values.config) -}}
{{- fail "config.kafka.create_topics needs the right to Create, which the KafkaUser has not: let strimzi.topics.enabled make the topics" -}}
{{- end -}}
{{- if and $values.setup.schemas (not (dig "registry" "url" "" $values.config)) -}}
{{- fail "setup.schemas needs a registry: set config.registry.url" -}}
{{- end -}}
{{- if and (or (include "causeway.given" $values.registry.ca) $values.registry.password.secretName $values.registry.token.secretName $values.registry.clientCertificate.secretName) (not (dig "registry" "url" "" $values.config)) -}}
{{- fail "what registry says is of no use without a registry: set config.registry.url" -}}
{{- end -}}
{{- end -}}

{{- define "causeway.checkConfig" -}}
{{- $values := .Values -}}
{{- $client := dig "kafka" "client" dict $values.config | default dict -}}
{{- range $property, $_ := include "causeway.kafkaClient" (include "causeway.kafka" (dict "root" . "given" $values.kafka) | fromJson) | fromJson -}}
{{- if hasKey $client $property -}}
{{- fail (printf "config.kafka.client.%s follows from kafka and strimzi in the values: leave one of the two out" $property) -}}
{{- end -}}
{{- end -}}
{{- $rules := include "causeway.clientRules" . | fromYaml -}}
{{- range $property, $_ := $client -}}
{{- $name := trimSuffix "_file" $property -}}
{{- if or (has $name $rules.refused) (hasSuffix "_cb" $name) -}}
{{- fail (printf "config.kafka.client.%s is refused by the bridge, which would not start: leave it out (docs/configuration.md says why)" $property) -}}
{{- end -}}
{{- if and (regexMatch "password|passphrase|secret|key\\.pem|private\\.key|jaas|oauthbearer\\.config|oauthbearer\\.token$" $property) (not (regexMatch "_file$|\\.file$" $property)) -}}
{{- fail (printf "config.kafka.client.%s is a secret, and a ConfigMap is no place for one: mount it (kafka.sasl, extraVolumes), and write %s_file" $property $property) -}}
{{- end -}}
{{- end -}}
{{- range $given := list (include "causeway.kafka" (dict "root" . "given" $values.kafka)) (include "causeway.setupKafka" .) -}}
{{- $names := list -}}
{{- range $property := concat (keys $client) (include "causeway.kafkaClient" ($given | fromJson) | fromJson | keys) -}}
{{- $names = append $names (trimSuffix "_file" $property) -}}
{{- end -}}
{{- range $pair := $rules.aliases -}}
{{- if and (has (first $pair) $names) (has (last $pair) $names) -}}
{{- fail (printf "%s and %s, which config.kafka.client or kafka gives, are one property: leave one of the two out" (first $pair) (last $pair)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $body := include "causeway.number" (list . "ingress" "body_bytes_max") | int64 -}}
{{- $message := include "causeway.messageBytes" . | int64 -}}
{{- if gt (add $body 16384) $message -}}
{{- fail (printf "config.ingress.body_bytes_max = %d and 16384 for key and headers is more than config.kafka.client.message.max.bytes = %d: leave the second out, and it follows from the first" $body $message) -}}
{{- end -}}
{{- $queue := include "causeway.number" (list . "ingress" "queue_bytes_max") | int64 -}}
{{- if lt $queue (mul 4 (add $body 16384)) -}}
{{- fail (printf "config.ingress.queue_bytes_max = %d holds less than 4 of the largest events: raise it to %d, or lower config.ingress.body_bytes_max" $queue (mul 4 (add $body 16384))) -}}
{{- end -}}
{{- range $label, $feed := $values.config.feeds | default dict -}}
{{- $schema := dig "schema" "" ($feed | default dict) -}}
{{- if and $schema (not (isAbs $schema)) (not (hasKey $values.schemas $schema)) -}}
{{- fail (printf "config.feeds.%s.schema is %s, which is not in schemas: put its text there, or mount it and write the whole path" $label $schema) -}}
{{- end -}}
{{- end -}}
{{- range $values.extraEnv -}}
{{- if regexMatch "^CAUSEWAY_(SENDER|INGRESS|ADMIN|DEDUPE|FEEDS)__" .name -}}
{{- fail (printf "extraEnv sets %s, which the chart would not know of: set it in config, as ports, probes, grace period, memory and topics follow from it" .name) -}}
{{- end -}}
{{- if has .name (list "CAUSEWAY_CONFIG" "CAUSEWAY_LOG" "CAUSEWAY_LOG_FORMAT") -}}
{{- fail (printf "extraEnv sets %s, which the chart sets itself: leave it out (the level is logLevel)" .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Times, memory, ports. */ -}}
{{- define "causeway.checkShape" -}}
{{- $values := .Values -}}
{{- $answerBy := include "causeway.answerByMs" . | int64 -}}
{{- $drain := include "causeway.drainMs" . | int64 -}}
{{- if lt $drain (add $answerBy 500) -}}
{{- fail (printf "config.ingress.drain_ms_max = %d is less than the %d ms in which a request is answered, which follow from config.sender.timeout_ms, and 500 ms for the last commits: raise it, or leave it out: %d" $drain $answerBy (add $answerBy 5000)) -}}
{{- end -}}
{{- $grace := include "causeway.graceSeconds" . | int64 -}}
{{- if and (not (kindIs "invalid" $values.terminationGracePeriodSeconds)) (lt (int64 $values.terminationGracePeriodSeconds) $grace) -}}
{{- fail (printf "terminationGracePeriodSeconds = %d, but preStop (%d s), drain (%d ms) and margin (%d s) need %d: leave it out, or raise it" (int64 $values.terminationGracePeriodSeconds) (int64 $values.shutdown.endpointsSeconds) $drain (int64 $values.shutdown.marginSeconds) $grace) -}}
{{- end -}}
{{- $limits := $values.resources.limits -}}
{{- $requests := $values.resources.requests -}}
{{- with $limits.memory -}}
{{- if lt (include "causeway.bytes" (list "resources.limits.memory" .) | int64) (include "causeway.memoryBytes" $ | int64) -}}
{{- fail (printf "resources.limits.memory = %s, but the bridge can take %s at its limits: leave it out, or lower config.ingress.connections_max, queue_bytes_max, in_flight_max or config.dedupe.bytes_max" . (include "causeway.memory" $)) -}}
{{- end -}}
{{- end -}}
{{- with $requests.memory -}}
{{- $limit := $limits.memory | default (include "causeway.memory" $) -}}
{{- if gt (include "causeway.bytes" (list "resources.requests.memory" .) | int64) (include "causeway.bytes" (list "resources.limits.memory" $limit) | int64) -}}
{{- fail (printf "resources.requests.memory = %s is more than the limit of %s, and Kubernetes takes no such pod: leave it out, or raise resources.limits.memory" (toString .) (toString $limit)) -}}
{{- end -}}
{{- end -}}
{{- if and $requests.cpu $limits.cpu (gt (include "causeway.millicores" (list "resources.requests.cpu" $requests.cpu) | int64) (include "causeway.millicores" (list "resources.limits.cpu" $limits.cpu) | int64)) -}}
{{- fail (printf "resources.requests.cpu = %s is more than resources.limits.cpu = %s, and Kubernetes takes no such pod: lower the first, or leave the second out" (toString $requests.cpu) (toString $limits.cpu)) -}}
{{- end -}}
{{- if eq (int $values.ports.events) (int $values.ports.admin) -}}
{{- fail "ports.events and ports.admin are the same: give each its own" -}}
{{- end -}}
{{- end -}}

{{- define "causeway.checkScaling" -}}
{{- $values := .Values -}}
{{- if and $values.autoscaling.enabled $values.keda.enabled -}}
{{- fail "autoscaling.enabled and keda.enabled would pull at the same Deployment: keep one of the two" -}}
{{- end -}}
{{- range $name, $scaling := dict "autoscaling" $values.autoscaling "keda" $values.keda -}}
{{- if and $scaling.enabled (gt (int $scaling.minReplicas) (int $scaling.maxReplicas)) -}}
{{- fail (printf "%s.minReplicas is more than %s.maxReplicas: exchange them" $name $name) -}}
{{- end -}}
{{- end -}}
{{- with $values.autoscaling -}}
{{- if and .enabled (kindIs "invalid" .cpuUtilization) (kindIs "invalid" .inFlight) -}}
{{- fail "autoscaling.enabled has nothing to go by: set autoscaling.cpuUtilization or autoscaling.inFlight" -}}
{{- end -}}
{{- end -}}
{{- with $values.keda -}}
{{- if and .enabled (not .prometheus.serverAddress) (not .triggers) -}}
{{- fail "keda.enabled has nothing to go by: set keda.prometheus.serverAddress or keda.triggers" -}}
{{- end -}}
{{- end -}}
{{- $least := include "causeway.replicasMin" . | int -}}
{{- with $values.podDisruptionBudget -}}
{{- if and .enabled (not (kindIs "invalid" .minAvailable)) (ge (include "causeway.ofInstances" (list .minAvailable $least) | int) $least) -}}
{{- fail (printf "podDisruptionBudget.minAvailable = %s of %d instances lets no node ever be drained: lower it, or raise the number of instances" (toString .minAvailable) $least) -}}
{{- end -}}
{{- if and .enabled (kindIs "invalid" .minAvailable) (gt $least 1) (eq $values.workload "deployment") (ge (include "causeway.ofInstances" (list .maxUnavailable $least) | int) $least) -}}
{{- fail (printf "podDisruptionBudget.maxUnavailable = %s of %d instances lets the drain of nodes take all at once: lower it, or raise the number of instances" (toString .maxUnavailable) $least) -}}
{{- end -}}
{{- end -}}
{{- if eq $values.workload "sidecar" -}}
{{- range $name, $part := dict "autoscaling" $values.autoscaling "keda" $values.keda "networkPolicy" $values.networkPolicy -}}
{{- if $part.enabled -}}
{{- fail (printf "%s.enabled is about pods of the chart's own, and with workload: sidecar there are none: write it for your pods" $name) -}}
{{- end -}}
{{- end -}}
{{- if not $values.sidecar.selectorLabels -}}
{{- fail "workload: sidecar needs sidecar.selectorLabels: the labels of your pods, by which the Services find them" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* How many a budget's number or percentage is, rounded up as Kubernetes does: (list budget instances). */ -}}
{{- define "causeway.ofInstances" -}}
{{- $text := index . 0 | toString -}}
{{- if hasSuffix "%" $text -}}
{{- div (add (mul (trimSuffix "%" $text | int) (index . 1)) 99) 100 -}}
{{- else -}}
{{- int $text -}}
{{- end -}}
{{- end -}}

{{- /*
How many there are to be now. Without the field the API server would make it 1, at the first installation and again when a
scaler is switched on. With a scaler: as many as there are, at least its minimum. Where Helm cannot look (helm template, Argo CD) it is
the minimum.
*/ -}}
{{- define "causeway.replicasNow" -}}
{{- $least := include "causeway.replicasMin" . | int -}}
{{- if or .Values.autoscaling.enabled .Values.keda.enabled -}}
{{- $there := lookup "apps/v1" "Deployment" .Release.Namespace (include "causeway.fullname" .) | default dict -}}
{{- max $least (dig "spec" "replicas" 0 $there | int) -}}
{{- else -}}
{{- $least -}}
{{- end -}}
{{- end -}}

{{- define "causeway.replicasMin" -}}
{{- if .Values.autoscaling.enabled -}}
{{- .Values.autoscaling.minReplicas -}}
{{- else if .Values.keda.enabled -}}
{{- .Values.keda.minReplicas -}}
{{- else -}}
{{- .Values.replicas -}}
{{- end -}}
{{- end -}}

{{- /* Service and gateway. */ -}}
{{- define "causeway.checkAround" -}}
{{- with .Values.service -}}
{{- if eq .type "ClusterIP" -}}
{{- range $key := list "nodePort" "externalTrafficPolicy" -}}
{{- if get $.Values.service $key -}}
{{- fail (printf "service.%s is for service.type NodePort or LoadBalancer: change the type, or leave it out" $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and (ne .type "LoadBalancer") (or .loadBalancerClass .loadBalancerSourceRanges) -}}
{{- fail "service.loadBalancerClass and service.loadBalancerSourceRanges are for service.type LoadBalancer: change the type, or leave them out" -}}
{{- end -}}
{{- end -}}
{{- with .Values.gateway -}}
{{- if and .enabled (not (and .parentRefs .hostnames)) -}}
{{- fail "gateway.enabled needs gateway.parentRefs and gateway.hostnames" -}}
{{- end -}}
{{- end -}}
{{- end -}}
