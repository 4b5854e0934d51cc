#!/usr/bin/env bash
# The CloudEvents SDK for Python reads a Kafka message in binary content mode whose value is Avro (content-type: application/avro).
#
# Versions: PyPI cloudevents 2.2.0, fastavro 1.13.1.
# Behaviour: the type of the event's data depends on the value, not on its content type. With the SDK's JSON format, the only one that it
#   ships, `from_binary` decodes every value that happens to be valid UTF-8 and hands it over as str, and gives bytes for the others. So two events
#   of one topic and one schema, of which one holds the number 63 and the other 64, arrive as str and as bytes, and an Avro reader fails on
#   the first. The way out is to take the message's own value and only the attributes from the SDK.
# Output: for each number the value and the type that the SDK made of it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check cloudevents==2.2.0 fastavro==1.13.1
"$work/venv/bin/python" - <<'PYTHON'
import io

import fastavro
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary
from cloudevents.core.formats.json import JSONFormat

schema = fastavro.parse_schema({"type": "record", "name": "Event", "fields": [{"name": "count", "type": "long"}]})
headers = {
    "ce_specversion": b"1.0",
    "ce_id": b"1",
    "ce_source": b"com.example",
    "ce_type": b"COUNTED",
    "content-type": b"application/avro",
}


def data_of(count):
    # Confluent's wire format: a zero byte, the schema's id, the record.
    value = io.BytesIO(b"\x00\x00\x00\x00\x01")
    value.seek(0, io.SEEK_END)
    fastavro.schemaless_writer(value, schema, {"count": count})
    data = from_binary(KafkaMessage(headers, None, value.getvalue()), JSONFormat()).get_data()
    print(count, value.getvalue(), type(data).__name__)
    return data


assert isinstance(data_of(63), str)
assert isinstance(data_of(64), bytes)
PYTHON
echo "as stated"
