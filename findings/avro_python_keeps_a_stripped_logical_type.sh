#!/usr/bin/env bash
# Avro's parsing canonical form, by two Python libraries, of a field with a logical type.
#
# Versions: PyPI avro 1.12.1 (Apache's own), fastavro 1.13.1.
# Behaviour: the specification strips all attributes that a reader does not need, `logicalType` among them, and writes a primitive type as
#   its name alone. fastavro does both. avro 1.12.1 strips the attribute and leaves the object that held it: {"type":"long"} where
#   the form has "long". So its fingerprint differs for each schema that has a timestamp, and a record in single-object encoding that
#   names the schema by fastavro's fingerprint is one that avro does not know. Without a logical type both agree.
# Output: both forms and their CRC-64-AVRO fingerprints, in the byte order of single-object encoding.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check avro==1.12.1 fastavro==1.13.1
"$work/venv/bin/python" - <<'PYTHON'
import json

import avro.schema
from fastavro.schema import fingerprint, to_parsing_canonical_form


def both(at):
    schema = {"type": "record", "name": "Event", "fields": [{"name": "at", "type": at}]}
    fast = to_parsing_canonical_form(schema)
    apache = avro.schema.parse(json.dumps(schema))
    found = [(fast, fingerprint(fast, "CRC-64-AVRO")), (str(apache.canonical_form), apache.fingerprint().hex())]
    print(*(f"{name}: {form} {mark}" for name, (form, mark) in zip(("fastavro", "avro"), found)), sep="\n")
    return found


plain = both("long")
assert plain[0] == plain[1], plain
fast, apache = both({"type": "long", "logicalType": "timestamp-millis"})
assert fast == plain[0], fast
assert '"type":{"type":"long"}' in apache[0] and apache[1] != fast[1], apache
PYTHON
echo "as stated"
