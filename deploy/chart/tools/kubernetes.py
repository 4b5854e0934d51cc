"""Copies the schemas of a Kubernetes version for kubeconform: kubernetes.py VERSION FOLDER

Theirs refer to https://kubernetes.io, where nothing stands; these to the file beside them.
"""

import json
import os
import pathlib
import sys

import kubernetes_validate

version, folder = sys.argv[1:]
name = f"v{version}-local-strict"
source = pathlib.Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema" / name
target, new = pathlib.Path(folder, name), pathlib.Path(folder, f"{name}.new")
if not target.exists():
    new.mkdir(parents=True, exist_ok=True)
    for file in source.glob("*.json"):
        schema = json.loads(file.read_text().replace('"/api/_definitions.json#', '"_definitions.json#'))
        schema.pop("$id", None)
        (new / file.name).write_text(json.dumps(schema))
    os.rename(new, target)
