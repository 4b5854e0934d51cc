-- Events once: each feed's topic again as TOPIC.once, in which every event has exactly one record.
-- A record goes over as it came: key, value, headers and timestamp byte by byte, so that whatever reads TOPIC reads TOPIC.once.
--
-- State: 1 day of identities (some 100 bytes each). A copy that comes more than a day after the first is stored again.

SET 'table.exec.state.ttl' = '1 d';
SET 'execution.checkpointing.interval' = '10 s';

CREATE TABLE events (
  event_key BYTES,
  event_value BYTES,
  topic STRING METADATA VIRTUAL,
  headers MAP<STRING, BYTES> METADATA,
  received_at TIMESTAMP_LTZ(3) METADATA FROM 'timestamp',
  arrived AS PROCTIME()
) WITH (
  'connector' = 'kafka',
  'topic' = 'asapp.activity;asapp.journey;asapp.queue;asapp.other',
  'properties.bootstrap.servers' = 'localhost:9092',
  'properties.group.id' = 'events-once',
  'scan.startup.mode' = 'earliest-offset',
  'key.format' = 'raw',
  'key.fields' = 'event_key',
  'value.format' = 'raw',
  'value.fields-include' = 'EXCEPT_KEY'
);

CREATE TABLE events_once (
  -- The agent's, issue's or queue's id as text; null where the event has none.
  event_key BYTES,
  -- The event in Avro, as docs/consuming.md says; never null.
  event_value BYTES,
  -- The feed's topic with .once behind it.
  topic STRING METADATA,
  -- CloudEvents' attributes, causeway_body, and the sender's trace where it had one.
  headers MAP<STRING, BYTES> METADATA,
  -- When the bridge received the copy that came first.
  received_at TIMESTAMP_LTZ(3) METADATA FROM 'timestamp'
) WITH (
  'connector' = 'kafka',
  'topic' = 'asapp.activity.once;asapp.journey.once;asapp.queue.once;asapp.other.once',
  'properties.bootstrap.servers' = 'localhost:9092',
  'key.format' = 'raw',
  'key.fields' = 'event_key',
  'value.format' = 'raw',
  'value.fields-include' = 'EXCEPT_KEY',
  -- Readers need isolation.level=read_committed.
  'sink.delivery-guarantee' = 'exactly-once',
  'sink.transactional-id-prefix' = 'events-once',
  -- Brokers allow 15 minutes at most by default, which is the longest that the job may be away.
  'properties.transaction.timeout.ms' = '900000'
);

INSERT INTO events_once
SELECT event_key, event_value, topic || '.once', headers, received_at
FROM (
  SELECT *, ROW_NUMBER() OVER (
    PARTITION BY topic, headers['ce_source'], headers['ce_id'], headers['causeway_body']
    ORDER BY arrived) AS copy
  FROM events)
WHERE copy = 1;
