#!/usr/bin/env bash
# ClickHouse reads an Avro record that stands in a union with null, and whose schema has a new version.
#
# Versions: PyPI chdb 4.4.0 with chdb-core 26.9.0, which is ClickHouse 26.9.2.1; fastavro 1.13.1.
# Behaviour: the name of a column is a path into the record, and where a union stands on it the path has the name of the union's record too:
#   `data.Data.agent`, not `data.agent`. (Its pull request 10502 says so, the page of the format does not.) With input_format_avro_allow_missing_fields,
#   which that page has for fields that a version lacks, the path without it is no error: each value is NULL, without a word, though the file has one. A
#   Tuple column takes a record only with exactly the members of the file's own version; one more in either, which Avro resolves by the
#   default, is INCORRECT_DATA, with that setting too.
# Output: per version and column what is read.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check chdb==4.4.0 chdb-core==26.9.0 fastavro==1.13.1
cd "$work"
venv/bin/python - <<'PYTHON'
import chdb
import fastavro


def text(name):
    return {"name": name, "type": ["null", "string"], "default": None}


def write(file, members):
    data = {"type": "record", "name": "Data", "fields": [text(name) for name in members]}
    event = {"type": "record", "name": "Event", "fields": [{"name": "data", "type": ["null", data], "default": None}]}
    with open(file, "wb") as out:
        fastavro.writer(out, fastavro.parse_schema(event), [{"data": {name: name.upper() for name in members}}])


def read(file, column, shown):
    settings = "SETTINGS input_format_avro_allow_missing_fields = 1"
    try:
        found = str(chdb.query(f"SELECT {shown} FROM file('{file}', Avro, '{column}') {settings}", "TSV")).strip()
    except Exception as error:
        found = str(error).rsplit("(", 1)[-1].rstrip(").\n")
    print(f"{file}  {column}: {found}")
    return found


write("one.avro", ["agent"])
write("two.avro", ["agent", "queue"])
print(str(chdb.query("SELECT version()", "TSV")).strip())
for file in ["one.avro", "two.avro"]:
    assert read(file, "`data.agent` Nullable(String)", "`data.agent`") == "\\N"
    assert read(file, "`data.Data.agent` Nullable(String)", "`data.Data.agent`") == "AGENT"
assert read("one.avro", "data Tuple(agent Nullable(String))", "data.agent") == "AGENT"
assert read("two.avro", "data Tuple(agent Nullable(String))", "data.agent") == "INCORRECT_DATA"
assert read("one.avro", "data Tuple(agent Nullable(String), queue Nullable(String))", "data.agent") == "INCORRECT_DATA"
PYTHON
echo "as stated"
