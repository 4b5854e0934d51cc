"""The fingerprints that the tests expect are those that fastavro computes."""

import json
import pathlib
import sys

import fastavro.schema

root = pathlib.Path(__file__).resolve().parents[2]
expected = json.loads((root / "tests/data/fingerprints.json").read_text())
wrong = 0
for feed, fingerprint in expected.items():
    schema = json.loads((root / f"schemas/{feed}.avsc").read_text())
    canonical = fastavro.schema.to_parsing_canonical_form(schema)
    found = fastavro.schema.fingerprint(canonical, "CRC-64-AVRO")
    if found != fingerprint:
        wrong += 1
        print(f"{feed}: fastavro computes {found}, the tests expect {fingerprint}")
print(f"{len(expected) - wrong} passed, {wrong} failed")
sys.exit(bool(wrong))
