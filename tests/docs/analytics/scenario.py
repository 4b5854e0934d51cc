"""Whole conversations as ASAPP would send them, one event a line: `scenario.py SEED CHATS CALLS first.ndjson second.ndjson`.

The two files are for two instances of the bridge. Events come out of order by up to ten minutes, some of them an hour late; of some
each instance gets a copy. Half of the conversations tell in each event what has accumulated, the others only what is new.
"""

import json
import random
import sys
from datetime import datetime, timedelta, timezone

BEGIN = datetime(2026, 3, 1, 22, 30, tzinfo=timezone.utc)
DISORDER_S = 600
QUEUES = ["Billing", "Sales", "Outages", "Retention"]
INTENTS = ["BILLING", "DISPUTE", "OUTAGE", "MOVE", "CANCEL"]
STATUSES = ["ACTIVE", "AWAY", "WRAPPING_UP"]


def written(time):
    return time.strftime("%Y-%m-%dT%H:%M:%S.") + f"{time.microsecond // 1000:03}Z"


class Scenario:
    def __init__(self, seed):
        self.dice = random.Random(seed)
        self.events = []

    def id(self, prefix):
        return f"{prefix}{self.dice.getrandbits(64):016X}"

    def event(self, feed, kind, time, meta, data, details):
        create = time + timedelta(milliseconds=self.dice.randint(1, 40))
        event = {
            "api_version": "v1.3.0",
            "name": f"com.asapp.event.{feed}",
            "event_id": self.id("e"),
            "event_type": kind,
            "meta_data": {"create_time": written(create), "event_time": written(time), **meta},
            "data": data,
            "details": details,
        }
        late = 3600 if self.dice.random() < 0.01 else 0
        arrives = create + timedelta(seconds=late + self.dice.uniform(0, DISORDER_S))
        self.events.append((arrives, json.dumps(event, separators=(",", ":"))))

    def conversation(self, messages):
        dice, issue = self.dice, self.id("I")
        accumulates = dice.random() < 0.5
        meta = {"issue_id": issue, "session_id": self.id("S"), "company_id": "acme", "client_type": "SMS"}
        data, details, known = {"customer_id": self.id("C")}, {}, {}
        time = BEGIN + timedelta(seconds=dice.uniform(0, 7200))

        def tell(kind, seconds, **new):
            nonlocal time
            time += timedelta(seconds=seconds)
            new = {name: written(time) if value is NOW else value for name, value in new.items()}
            known.update(new)
            details.clear()
            details.update(known if accumulates else new)
            self.event("journey", kind, time, meta, dict(data), dict(details))

        tell("ISSUE_CREATED", 0, issue_start_ts=NOW)
        path = []
        for _ in range(dice.randint(0, 2)):
            path.append(dice.choice(INTENTS))
            tell("INTENT_CHANGE", dice.uniform(1, 9), intent_code=path[-1], intent_code_path=">".join(path))
        for _ in range(dice.choice([0, 1, 1, 1, 2])):
            if not self.with_an_agent(tell, data, messages):
                break
        if dice.random() < 0.9:
            tell("ISSUE_ENDED", dice.uniform(1, 60), issue_ended_ts=NOW, is_resolved=dice.random() < 0.7)
            if dice.random() < 0.3:
                answers = [{"question": "Solved?", "answer": dice.choice(["yes", "no"]), "ordering": 1}]
                tell("SURVEY_SUBMITTED", dice.uniform(5, 300), survey_submit_ts=NOW, survey_responses=answers)

    def with_an_agent(self, tell, data, messages):
        """One request for an agent; false where the customer left the queue."""
        dice = self.dice
        data.update(opportunity_id=self.id("O"), queue_name=dice.choice(QUEUES))
        data.pop("agent_id", None)
        tell("OPPORTUNITY_ESCALATED", dice.uniform(1, 9), detected_ts=NOW, escalated_ts=NOW)
        tell("QUEUED", 0.2, queued_ts=NOW)
        waited = dice.uniform(1, 240)
        if dice.random() < 0.15:
            tell("QUEUE_ABANDONED", waited, abandoned_ts=NOW, queued_ms=int(waited * 1000))
            return False
        data["agent_id"] = f"A{dice.randrange(40):03}"
        tell("ASSIGNED", waited, assigned_ts=NOW, queued_ms=int(waited * 1000))
        response = dice.uniform(1, 60)
        tell("AGENT_FIRST_RESPONDED", response, agent_first_response_ms=int(response * 1000), agent_utterance_ct=1)
        said, heard = 1, 0
        for _ in range(messages):
            if dice.random() < 0.5:
                said += 1
                tell("TEXT_MESSAGE", dice.uniform(1, 20), last_agent_utterance_ts=NOW, agent_utterance_ct=said)
            else:
                heard += 1
                tell("TEXT_MESSAGE", dice.uniform(1, 20), last_customer_utterance_ts=NOW, customer_utterance_ct=heard)
        how = dice.choice(["AGENT_ENDED", "CUSTOMER_ENDED", "TIMED_OUT"])
        tell("ASSIGNMENT_ENDED", dice.uniform(1, 20), assigment_ended_ts=NOW, ended_type=how)
        return True

    def shift(self, agent):
        data = {"rep_id": f"A{agent:03}", "desk_mode": "DIGITAL", "max_slots": 3}
        time = BEGIN
        while (time := time + timedelta(seconds=self.dice.uniform(60, 900))) < BEGIN + timedelta(hours=2):
            details = {"routing_status": self.dice.choice(STATUSES), "routing_status_updated_ts": written(time)}
            self.event("activity", "agent_activity_routing_status_updated", time, {}, data, details)

    def day(self, queue):
        time = BEGIN
        while (time := time + timedelta(seconds=self.dice.uniform(10, 120))) < BEGIN + timedelta(hours=2):
            details = {"last_queue_size": self.dice.randrange(40), "last_queue_size_ts": written(time)}
            self.event("queue", "queue_size_updated", time, {}, {"queue_id": queue, "queue_name": queue}, details)

    def note(self):
        """Of a feed that nobody knows, without a key."""
        time = BEGIN + timedelta(seconds=self.dice.uniform(0, 7200))
        self.event("note", "NOTED", time, {}, {"text": self.id("N")}, {})


NOW = object()


def main():
    seed, chats, calls = map(int, sys.argv[1:4])
    scenario = Scenario(seed)
    for _ in range(chats):
        scenario.conversation(messages=4)
    for _ in range(calls):
        scenario.conversation(messages=90)
    for agent in range(40):
        scenario.shift(agent)
    for queue in QUEUES:
        scenario.day(queue)
    for _ in range(50):
        scenario.note()
    with open(sys.argv[4], "w") as first, open(sys.argv[5], "w") as second:
        for _, line in sorted(scenario.events):
            twice = scenario.dice.random() < 0.05
            files = [first, second] if twice else [scenario.dice.choice([first, second])]
            for file in files:
                print(line, file=file)


if __name__ == "__main__":
    main()
