-- Issues: one row an issue, which every further event of the issue replaces by a fuller one.
-- Whatever order the events come in, and however often, the row is the same in the end: each column is the least, the greatest or a
-- distinct count. So this reads the feed as it is. An event that has what ASAPP accumulated and one that has a part alone both fit.
--
-- State: issues with an event in the last 2 days. A later event begins a new row of what comes from then on.

SET 'table.exec.state.ttl' = '2 d';
SET 'execution.checkpointing.interval' = '10 s';

CREATE TABLE journey (
  event_type STRING,
  meta_data ROW<issue_id STRING, event_time TIMESTAMP(3)>,
  data ROW<customer_id STRING, opportunity_id STRING, queue_name STRING, agent_id STRING>,
  details ROW<
    issue_start_ts TIMESTAMP(3), intent_code STRING, intent_code_path STRING, escalated_ts TIMESTAMP(3), queued_ts TIMESTAMP(3), queued_ms BIGINT,
    abandoned_ts TIMESTAMP(3), assigned_ts TIMESTAMP(3), agent_first_response_ms BIGINT, agent_utterance_ct BIGINT, customer_utterance_ct BIGINT,
    issue_ended_ts TIMESTAMP(3), ended_type STRING, is_resolved BOOLEAN, survey_submit_ts TIMESTAMP(3)>
) WITH (
  'connector' = 'kafka',
  'topic' = 'asapp.journey',
  'properties.bootstrap.servers' = 'localhost:9092',
  'properties.group.id' = 'issues',
  'scan.startup.mode' = 'earliest-offset',
  'value.format' = 'avro-confluent',
  'value.avro-confluent.url' = 'http://localhost:8081'
);

-- A value behind the time of its event: the least of these is the first value, the greatest the last one.
CREATE VIEW said AS
SELECT
  meta_data.issue_id AS issue_id,
  meta_data.event_time AS event_time,
  CAST(meta_data.event_time AS STRING) AS happened,
  data.customer_id AS customer_id, data.opportunity_id AS opportunity_id, data.queue_name AS queue_name, data.agent_id AS agent_id,
  details.*
FROM journey
WHERE meta_data.issue_id IS NOT NULL AND meta_data.event_time IS NOT NULL;

CREATE TABLE issues (
  -- ASAPP's id of the conversation.
  issue_id STRING,
  -- Its customer; null where no event named one.
  customer_id STRING,
  -- When it began (UTC); null while no event said so.
  created_at TIMESTAMP(3),
  -- The times of its first and its last event so far (UTC).
  first_event_at TIMESTAMP(3),
  last_event_at TIMESTAMP(3),
  -- The intent that was recognized first, and all of them in the last event that had the path; null where there was none.
  first_intent STRING,
  intent_path STRING,
  -- The number of its requests for an agent (opportunities) that were escalated; 0 if none was.
  escalations BIGINT,
  -- When it first entered a queue (UTC), and the last queue's name; null where it never did.
  queued_at TIMESTAMP(3),
  queue_name STRING,
  -- Its longest stay in a queue, in milliseconds; null while none has ended.
  waited_ms BIGINT,
  -- When the customer first left a queue (UTC); null if that did not happen.
  abandoned_at TIMESTAMP(3),
  -- When an agent was first assigned (UTC); null where none was.
  assigned_at TIMESTAMP(3),
  -- All agents who were assigned, by their ids in the order of the alphabet; null where none was.
  agents STRING,
  -- ASAPP's time to an agent's first message, in milliseconds, of the first agent who wrote; null while there is none.
  first_response_ms BIGINT,
  -- The greatest count of messages of each side that an event had; null while no event counted them.
  agent_utterances BIGINT,
  customer_utterances BIGINT,
  -- When it last ended (UTC); null while it goes on.
  ended_at TIMESTAMP(3),
  -- How the last assignment ended, as ASAPP calls it; null while none has.
  ended_type STRING,
  -- The last word on whether it counts as resolved; null while there is none.
  is_resolved BOOLEAN,
  -- When the customer answered the survey (UTC); null if that did not happen.
  surveyed_at TIMESTAMP(3),
  PRIMARY KEY (issue_id) NOT ENFORCED
) WITH (
  'connector' = 'upsert-kafka',
  'topic' = 'analytics.issues',
  'properties.bootstrap.servers' = 'localhost:9092',
  'key.format' = 'raw',
  'value.format' = 'json',
  'value.json.timestamp-format.standard' = 'ISO-8601'
);

INSERT INTO issues
SELECT
  issue_id,
  MAX(customer_id),
  MIN(issue_start_ts),
  MIN(event_time),
  MAX(event_time),
  SUBSTRING(MIN(happened || intent_code) FROM 24),
  SUBSTRING(MAX(happened || intent_code_path) FROM 24),
  COUNT(DISTINCT opportunity_id) FILTER (WHERE escalated_ts IS NOT NULL),
  MIN(queued_ts),
  SUBSTRING(MAX(happened || queue_name) FILTER (WHERE queued_ts IS NOT NULL) FROM 24),
  MAX(queued_ms),
  MIN(abandoned_ts),
  MIN(assigned_ts),
  ARRAY_JOIN(ARRAY_SORT(ARRAY_AGG(DISTINCT agent_id) FILTER (WHERE agent_id IS NOT NULL)), ','),
  CAST(SUBSTRING(MIN(happened || CAST(agent_first_response_ms AS STRING)) FROM 24) AS BIGINT),
  MAX(agent_utterance_ct),
  MAX(customer_utterance_ct),
  MAX(issue_ended_ts),
  SUBSTRING(MAX(happened || ended_type) FROM 24),
  CAST(SUBSTRING(MAX(happened || CAST(is_resolved AS STRING)) FROM 24) AS BOOLEAN),
  MAX(survey_submit_ts)
FROM said
GROUP BY issue_id;
