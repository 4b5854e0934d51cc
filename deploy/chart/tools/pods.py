"""The pods that controllers would make of the objects on standard input, one of each: JSON in, JSON out."""

import json
import sys

pods = []
for each in json.load(sys.stdin)["items"]:
    template = each["spec"]["template"]
    volumes = [
        {"name": claim["metadata"]["name"], "emptyDir": {}} for claim in each["spec"].get("volumeClaimTemplates", [])
    ]
    spec = {**template["spec"], "volumes": template["spec"].get("volumes", []) + volumes}
    labels = {key: value for key, value in template["metadata"]["labels"].items() if "controller-uid" not in key}
    metadata = {"generateName": f"{each['metadata']['name']}-", "labels": labels}
    pods.append({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
json.dump({"apiVersion": "v1", "kind": "List", "items": pods}, sys.stdout)
