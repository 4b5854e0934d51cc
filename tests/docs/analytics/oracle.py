"""The tables of deploy/flink from the events that were sent, without Flink: `oracle.py SERVERS FILE ...` waits until the topics
hold exactly these, and says how many rows and events that are. What is wrong at the end of its patience is printed.
"""

import json
import sys
import time

from confluent_kafka import Consumer, KafkaException, TopicPartition

PATIENCE_S = 300
FEEDS = ["activity", "journey", "queue", "other"]


def issues(events):
    """One row an issue: each member by the events that have it, in the order of their times."""
    told = {}
    for event in events:
        if event["name"] == "com.asapp.event.journey":
            told.setdefault(event["meta_data"]["issue_id"], []).append(event)
    return {issue: row(issue, events) for issue, events in told.items()}


def row(issue, events):
    events = sorted(events, key=lambda event: event["meta_data"]["event_time"])
    time_of = lambda event: event["meta_data"]["event_time"]
    details = lambda name: [event["details"][name] for event in events if name in event["details"]]
    queued = [event["data"]["queue_name"] for event in events if "queued_ts" in event["details"]]
    escalated = {event["data"]["opportunity_id"] for event in events if "escalated_ts" in event["details"]}
    agents = {event["data"]["agent_id"] for event in events if "agent_id" in event["data"]}
    first = lambda values: next(iter(values), None)
    last = lambda values: values[-1] if values else None
    least = lambda name: min(details(name), default=None)
    most = lambda name: max(details(name), default=None)
    return {
        "issue_id": issue,
        "customer_id": last([event["data"]["customer_id"] for event in events]),
        "created_at": least("issue_start_ts"),
        "first_event_at": time_of(events[0]),
        "last_event_at": time_of(events[-1]),
        "first_intent": first(details("intent_code")),
        "intent_path": last(details("intent_code_path")),
        "escalations": len(escalated),
        "queued_at": least("queued_ts"),
        "queue_name": last(queued),
        "waited_ms": most("queued_ms"),
        "abandoned_at": least("abandoned_ts"),
        "assigned_at": least("assigned_ts"),
        "agents": ",".join(sorted(agents)) or None,
        "first_response_ms": first(details("agent_first_response_ms")),
        "agent_utterances": most("agent_utterance_ct"),
        "customer_utterances": most("customer_utterance_ct"),
        "ended_at": most("issue_ended_ts"),
        "ended_type": last(details("ended_type")),
        "is_resolved": last(details("is_resolved")),
        "surveyed_at": most("survey_submit_ts"),
    }


def as_flink_writes(row):
    """ISO-8601 without an offset, and no zeros at the end of a fraction."""

    def text(name, value):
        if value is None or not name.endswith("_at"):
            return value
        value = value.removesuffix("Z").rstrip("0").removesuffix(".")
        return value

    return {name: text(name, value) for name, value in row.items()}


def identity(headers):
    return headers["ce_source"], headers["ce_id"], headers["causeway_body"]


def read(servers, topics, keep):
    """All that is committed in these topics now."""
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "oracle", "isolation.level": "read_committed",
                         "enable.auto.commit": False, "enable.partition.eof": True})
    partitions = [TopicPartition(topic, partition, 0) for topic in topics
                  for partition in consumer.list_topics(topic, timeout=30).topics[topic].partitions]
    consumer.assign(partitions)
    ended = set()
    while len(ended) < len(partitions):
        message = consumer.poll(30)
        if message is None:
            raise TimeoutError(f"{topics} cannot be read to their end")
        if message.error():
            if message.error().name() != "_PARTITION_EOF":
                raise KafkaException(message.error())
            ended.add((message.topic(), message.partition()))
            continue
        keep(message)
    consumer.close()


def issues_there(servers):
    rows = {}

    def keep(message):
        rows[message.key().decode()] = json.loads(message.value())

    read(servers, ["analytics.issues"], keep)
    return rows


def copies_there(servers, suffix):
    """Each feed's records by their identity, as often as they are there."""
    found = {}

    def keep(message):
        record = message.key(), message.value(), message.timestamp(), sorted(message.headers())
        found.setdefault((message.topic().removesuffix(suffix), *identity(dict(message.headers()))), []).append(record)

    read(servers, [f"asapp.{feed}{suffix}" for feed in FEEDS], keep)
    return found


def differences(servers, sent):
    """What is not as it must be, and what there is."""
    wrong, expected, rows = [], issues(sent), issues_there(servers)
    for issue in expected.keys() | rows.keys():
        want, have = expected.get(issue) and as_flink_writes(expected[issue]), rows.get(issue)
        if want != have:
            wrong.append(f"issue {issue}\n  sent  {want}\n  Flink {have}")
    before, after = copies_there(servers, ""), copies_there(servers, ".once")
    if len(before) != len(sent):
        wrong.append(f"{len(sent)} events were sent, {len(before)} are in the topics")
    for event in before.keys() | after.keys():
        copies = after.get(event, [])
        if len(copies) != 1 or copies[0] not in before.get(event, []):
            wrong.append(f"{event}: {len(copies)} records, {len(before.get(event, []))} before")
    records = sum(map(len, before.values()))
    return wrong, f"{records} records, {len(after)} events once, {len(rows)} issues"


def main():
    servers, files = sys.argv[1], sys.argv[2:]
    sent = [json.loads(line) for line in sorted({line for file in files for line in open(file)})]
    end = time.monotonic() + PATIENCE_S
    while True:
        wrong, there = differences(servers, sent)
        if not wrong:
            return print(f"as sent: {there}")
        if time.monotonic() > end:
            sys.exit("\n".join([*wrong[:20], f"{len(wrong)} differences: {there}"]))
        time.sleep(2)


if __name__ == "__main__":
    main()
