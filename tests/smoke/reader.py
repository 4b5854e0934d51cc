#!/usr/bin/env python3
"""Compares what stands in Kafka with what was posted, by a reader that shares no code with the bridge.

    pip install "confluent-kafka[avro,schemaregistry]" xxhash
    reader.py --brokers 127.0.0.1:9092 --registry http://127.0.0.1:8081 --topic asapp.activity --posted bodies/

Every posted event must be there, each copy with the document's JSON, key and headers. Other records are passed over.
"""

import argparse
import datetime
import json
import pathlib
import re
import sys
import unicodedata
from urllib.parse import quote

import fastavro.read
import xxhash
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

DEPTH_MAX, F64_MAX = 128, sys.float_info.max
ISSUE, REP, QUEUE = ("meta_data", "issue_id"), ("data", "rep_id"), ("data", "queue_id")
KEYS = {"com.asapp.event.activity": (REP, ISSUE), "com.asapp.event.journey": (ISSUE,), "com.asapp.event.queue": (QUEUE, ISSUE)}
EPOCH = datetime.datetime(1970, 1, 1)
# fastavro makes a datetime of it, which fails before the year 1 and after 9999: take the milliseconds as they are.
fastavro.read.LOGICAL_READERS["long-timestamp-millis"] = lambda millis, *schemas: millis


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--brokers", required=True)
    parser.add_argument("--registry", required=True, metavar="URL")
    parser.add_argument("--topic", action="append", required=True, dest="topics")
    parser.add_argument("--prefix", action="store_true", help="read every topic whose name starts with a --topic")
    parser.add_argument("--posted", required=True, type=pathlib.Path, metavar="DIR|NDJSON", help="a directory of *.json, or one body a line")
    parser.add_argument("--dead-letters", metavar="TOPIC", help="look here for the posted bodies that are no events")
    args = parser.parse_args()
    is_dir = args.posted.is_dir()
    bodies = [file.read_bytes() for file in args.posted.glob("*.json")] if is_dir else args.posted.read_bytes().split(b"\n")
    posted = {body: event(body) for body in bodies if is_dir or body}
    events = {(attribute(document["event_id"]), xxhash.xxh3_128_hexdigest(body)): document for body, document in posted.items() if document}
    unreadable = {body for body, document in posted.items() if args.dead_letters and not document}
    settings = {"group.id": "causeway-smoke", "enable.auto.commit": False, "enable.partition.eof": True}
    consumer = Consumer({"bootstrap.servers": args.brokers, **settings})
    if args.prefix:
        known = consumer.list_topics(timeout=10).topics.keys() - {args.dead_letters}
        args.topics = [name for name in known if name.startswith(tuple(args.topics))]

    decode, passed, failed = decoder(args.registry), set(), set()
    for message in (message for topic in args.topics for message in read(consumer, topic)):
        headers = dict(message.headers() or [])
        post = tuple(headers.get(name, b"").decode() for name in ("ce_id", "causeway_body"))
        if post in events:
            passed.add(post)
            for problem in problems(message, headers, events[post], decode):
                print(f"{message.topic()}[{message.partition()}]@{message.offset()} {post[0]!r}: {problem}")
                failed.add(post)
    if unreadable:
        passed |= unreadable & {message.value() or b"" for message in read(consumer, args.dead_letters)}
    for post in (events.keys() | unreadable) - passed:
        print(f"missing: {str(post)[:200]}")
        failed.add(post)
    print(f"{len(passed - failed)} passed, {len(failed)} failed")
    sys.exit(1 if failed or not passed else 0)


def event(body):
    """The document without null members, or None where `body` is no event by the promise's rules."""
    try:
        document = json.loads(body.decode(), object_pairs_hook=unique)
        check(document)
        identity = [document[name] for name in ("name", "event_id", "event_type", "api_version")]
    except (ValueError, RecursionError, KeyError, TypeError):
        return None
    return without_nulls(document) if all(isinstance(value, str) and value for value in identity) else None


def unique(pairs):
    if len(dict(pairs)) < len(pairs):
        raise ValueError("duplicate member")
    return dict(pairs)


def check(value, depth=1):
    """Raises ValueError at what Python reads and the promise does not: too deep, number out of range, lone surrogate."""
    too_deep = isinstance(value, (dict, list)) and depth > DEPTH_MAX
    too_large = isinstance(value, float) and not -F64_MAX <= value <= F64_MAX
    if too_deep or too_large or (isinstance(value, int) and not -(2**63) <= value < 2**64):
        raise ValueError
    if isinstance(value, str):
        value.encode()
    for inner in [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []:
        check(inner, depth + 1)


def without_nulls(value):
    if isinstance(value, dict):
        return {name: without_nulls(member) for name, member in value.items() if member is not None}
    return [without_nulls(element) for element in value] if isinstance(value, list) else value


def read(consumer, topic):
    """Every message of a topic, from the beginning to the end."""
    unread = set(consumer.list_topics(topic, timeout=10).topics[topic].partitions)
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in unread])
    while unread:
        message = consumer.poll(30)
        if message is None:
            raise TimeoutError(f"{topic}: nothing for 30 s, partitions {sorted(unread)} not read to their end")
        if not message.error():
            yield message
        elif message.error().code() == KafkaError._PARTITION_EOF:
            unread.discard(message.partition())
        else:
            raise KafkaException(message.error())


def problems(message, headers, document, decode):
    ours = {
        "ce_specversion": "1.0",
        "ce_id": attribute(document["event_id"]),
        "ce_source": source(document["name"]),
        "ce_type": attribute(document["event_type"]),
    }
    for name, text in {**ours, "content-type": "application/avro"}.items():
        if headers.get(name) != text.encode():
            yield f"header {name} is {headers.get(name)!r}, not {text!r}"
    if not is_key(message.key(), document):
        yield f"key is {message.key()!r}"
    try:
        found = decode(message)
        if (where := difference(found, document)) is not None:
            yield f"differs at '{where}': {json.dumps(found)[:2000]}"
    except Exception as error:  # Whatever the client throws at such a record is a finding.
        yield f"cannot be decoded: {error!r}"


def attribute(text):
    """As a CloudEvents string may be: without control characters and noncharacters, each percent-encoded."""
    odd = lambda c: unicodedata.category(c) == "Cc" or 0xFDD0 <= ord(c) <= 0xFDEF or ord(c) & 0xFFFE == 0xFFFE
    return "".join(quote(c, safe="") if odd(c) else c for c in text)


def source(name):
    """A name of usual letters is a URI-reference as it stands; the cases have no other that is one."""
    return name if re.fullmatch(r"[\w./~-]+", name, re.ASCII) else quote(name, safe="-._~!$&'()*+,;=@/?")


def is_key(key, document):
    places = [place for place in KEYS.get(document["name"], (ISSUE, REP)) if isinstance(document.get(place[0]), dict)]
    values = [document[parent].get(name) for parent, name in places]
    usable = lambda value: 0 < len(value.encode()) <= 1024 if isinstance(value, str) else type(value) in (int, float)
    value = next(filter(usable, values), None)
    return json.loads(key or "null") == value if type(value) in (int, float) else key == (value and value.encode())


def decoder(url):
    """A function: message -> the JSON document that its value stands for."""
    deserialize, schemas = AvroDeserializer(registry := SchemaRegistryClient({"url": url})), {}

    def decode(message):
        record = deserialize(message.value(), SerializationContext(message.topic(), MessageField.VALUE))
        schema_id = int.from_bytes(message.value()[1:5], "big")
        if schema_id not in schemas:
            text, named = registry.get_schema(schema_id).schema_str, {}
            schemas[schema_id] = fastavro.parse_schema(json.loads(text), named), named
        document = to_json(record, *schemas[schema_id])
        for pointer, text in document.pop("extras").items():
            put(document, pointer, json.loads(text))
        return without_nulls(document)

    return decode


def to_json(value, schema, named, is_json_text=False):
    schema = schema[1] if isinstance(schema, list) else schema  # ["null", T], and the caller drops nulls.
    schema = named.get(schema, schema) if isinstance(schema, str) else schema
    if isinstance(schema, str):
        return json.loads(value) if is_json_text else value
    if schema["type"] == "record":
        fields = [field for field in schema["fields"] if value.get(field["name"]) is not None]
        return {f["name"]: to_json(value[f["name"]], f["type"], named, f.get("causeway.json")) for f in fields}
    if schema["type"] == "array":
        return [to_json(item, schema["items"], named) for item in value]
    if schema["type"] == "map":
        return {key: to_json(entry, schema["values"], named) for key, entry in value.items()}
    try:  # All that is left is timestamp-millis.
        return (EPOCH + datetime.timedelta(milliseconds=value)).isoformat(timespec="milliseconds") + "Z"
    except OverflowError:
        return value


def put(document, pointer, value):
    """Sets what an RFC 6901 pointer leads to."""
    *path, last = [token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:]]
    for token in path:
        document = document[int(token) if isinstance(document, list) else token]
    document[int(last) if isinstance(document, list) else last] = value


def difference(found, posted, where=""):
    """The pointer to the first difference, None without one; numbers are compared by their value."""
    if isinstance(found, dict) and isinstance(posted, dict):
        inner = [(name, found.get(name), posted.get(name)) for name in found.keys() | posted.keys()]
    elif isinstance(found, list) and isinstance(posted, list) and len(found) == len(posted):
        inner = [(index, *pair) for index, pair in enumerate(zip(found, posted))]
    else:
        kinds = {float if isinstance(value, int) and not isinstance(value, bool) else type(value) for value in (found, posted)}
        return None if len(kinds) == 1 and found == posted else where
    return next((pointer for name, *pair in inner if (pointer := difference(*pair, f"{where}/{name}")) is not None), None)


if __name__ == "__main__":
    main()
