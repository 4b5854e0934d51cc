{{- /* Properties that the bridge refuses in `[kafka.client]`, and pairs of names of one property (src/config/client.rs; `.ci/chart` compares). */ -}}
{{- define "causeway.clientRules" -}}
refused:
  [acks, request.required.acks, enable.idempotence, max.in.flight, max.in.flight.requests.per.connection, retries,
   message.send.max.retries, enable.gapless.guarantee, queuing.strategy, msg_order_cmp, queue.buffering.backpressure.threshold,
   partitioner, partitioner_cb, transactional.id, transaction.timeout.ms, message.timeout.ms, delivery.timeout.ms, socket.timeout.ms,
   request.timeout.ms, metadata.request.timeout.ms, reconnect.backoff.ms, reconnect.backoff.max.ms, reconnect.backoff.jitter.ms,
   retry.backoff.ms, retry.backoff.max.ms, topic.metadata.refresh.interval.ms, topic.metadata.propagation.max.ms,
   enable.sparse.connections, delivery.report.only.error, produce.offset.report, bootstrap.servers, metadata.broker.list,
   queue.buffering.max.messages, queue.buffering.max.kbytes, allow.auto.create.topics, topic.blacklist, api.version.request,
   api.version.fallback.ms, broker.version.fallback, statistics.interval.ms, log_level, log.queue, plugin.library.paths,
   sasl.oauthbearer.assertion.algorithm, sasl.oauthbearer.assertion.claim.aud, sasl.oauthbearer.assertion.claim.exp.seconds,
   sasl.oauthbearer.assertion.claim.iss, sasl.oauthbearer.assertion.claim.jti.include, sasl.oauthbearer.assertion.claim.nbf.seconds,
   sasl.oauthbearer.assertion.claim.sub, sasl.oauthbearer.assertion.file, sasl.oauthbearer.assertion.jwt.template.file,
   sasl.oauthbearer.assertion.private.key.file, sasl.oauthbearer.assertion.private.key.passphrase,
   sasl.oauthbearer.assertion.private.key.pem, sasl.oauthbearer.metadata.authentication.type, https.ca.pem,
   sasl.oauthbearer.config, enable.sasl.oauthbearer.unsecure.jwt,
   ssl.engine.location, ssl.engine.id, builtin.features, test.mock.num.brokers, test.mock.broker.rtt, enabled_events, enable_sasl_queue,
   opaque, default_topic_conf, interceptors, open_cb, resolve_cb, ssl_key, ssl_certificate, ssl_ca, ssl_engine_callback_data,
   ut_handle_ProduceResponse, group.id, group.instance.id, group.protocol, group.protocol.type, group.remote.assignor,
   partition.assignment.strategy, session.timeout.ms, heartbeat.interval.ms, coordinator.query.interval.ms, max.poll.interval.ms,
   enable.auto.commit, auto.commit.enable, auto.commit.interval.ms, enable.auto.offset.store, auto.offset.reset, offset.store.method,
   offset.store.path, offset.store.sync.interval.ms, queued.min.messages, queued.max.messages.kbytes, fetch.wait.max.ms,
   fetch.queue.backoff.ms, fetch.message.max.bytes, max.partition.fetch.bytes, fetch.max.bytes, fetch.min.bytes, fetch.error.backoff.ms,
   isolation.level, enable.partition.eof, check.crcs, consume.callback.max.messages]
aliases:
  - [compression.codec, compression.type]
  - [queue.buffering.max.ms, linger.ms]
  - [sasl.mechanisms, sasl.mechanism]
  - [sasl.oauthbearer.client.credentials.client.id, sasl.oauthbearer.client.id]
  - [sasl.oauthbearer.client.credentials.client.secret, sasl.oauthbearer.client.secret]
{{- end -}}
