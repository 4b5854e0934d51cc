"""Gives each rendered configuration to the bridge itself, and compares the pod's shape with what the bridge says it needs.

    configurations.py CAUSEWAY MANIFESTS...

The files that the pod's volumes would hold are made, at the paths where the pod's mounts put them: what the
configuration names and no mount provides is missing for the bridge too.
"""

import concurrent.futures
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import yaml

from samples import make_samples

ETC = "/etc/causeway"


def main(bridge, manifests):
    bridge = os.path.abspath(bridge)
    with tempfile.TemporaryDirectory() as scratch:
        samples = make_samples(pathlib.Path(scratch, "samples"))
        judged = []
        # Each waits for addresses at which nobody is.
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            for manifest in manifests:
                objects = [each for each in yaml.safe_load_all(open(manifest)) if each]
                name = pathlib.Path(manifest).stem
                for pod, container in pods(objects):
                    where = f"{name}: {container['name']} of {pod['metadata']['name']}"
                    root = pathlib.Path(scratch, f"{len(judged)}")
                    fill(root, pod["spec"], container, objects, samples)
                    judged.append(pool.submit(judge, bridge, root, pod["spec"], container, where))
            for each in judged:
                each.result()
    count = len(judged)
    if count < len(manifests):
        sys.exit(f"{len(manifests)} manifests and only {count} containers with a configuration")
    print(f"{count} containers start with a configuration that the bridge takes")


def pods(objects):
    """Every pod with each of its containers that has a configuration."""
    for each in objects:
        template = each if each["kind"] == "Pod" else each.get("spec", {}).get("template")
        if not template:
            continue
        pod = {"metadata": each["metadata"], "spec": template["spec"]}
        for container in pod["spec"].get("initContainers", []) + pod["spec"]["containers"]:
            if environment(container).get("CAUSEWAY_CONFIG"):
                yield pod, container


def environment(container):
    return {each["name"]: each.get("value") for each in container.get("env", [])}


def fill(root, spec, container, objects, samples):
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    for mount in container["volumeMounts"]:
        if not mount["mountPath"].startswith(ETC):
            continue
        folder = root / os.path.relpath(mount["mountPath"], ETC)
        folder.mkdir(parents=True)
        volume = volumes[mount["name"]]
        if mount["name"] == "causeway-config":
            [config] = [each for each in objects if each["kind"] == "ConfigMap" and each["metadata"]["name"] == volume["configMap"]["name"]]
            for name, text in config["data"].items():
                (folder / name).write_text(text.replace(f'"{ETC}/', f'"{root}/'))
            continue
        # Without items it is all keys of a Secret with CAs.
        whole = [{"path": "ca.crt"}, {"path": "ca-2018-07-06T17-54-49Z.crt"}]
        for item in (volume.get("secret") or volume["configMap"]).get("items", whole):
            sample = "ca.crt" if item in whole else item["path"]
            (folder / item["path"]).write_bytes((samples / sample).read_bytes())


def judge(bridge, root, spec, container, where):
    given = environment(container)
    config = str(root) + given["CAUSEWAY_CONFIG"].removeprefix(ETC)
    # Takes the configuration with all that it names, and asks nobody.
    loaded = run(bridge, "schemas", "--print", "other", "--config", config)
    if loaded.returncode != 0:
        sys.exit(f"{where}: the configuration is refused:\n{loaded.stderr}\n{open(config).read()}")
    if "serve" not in container["args"]:
        return
    # Where nobody listens: certificates and budget are looked at all the same.
    away = {"CAUSEWAY_KAFKA__BROKERS": "127.0.0.1:1"}
    if "[registry]" in open(config).read():
        away["CAUSEWAY_REGISTRY__URL"] = "http://127.0.0.1:1"
    checked = json.loads(run(bridge, "check", "--json", "--config", config, **away).stdout)
    good = {finding["about"] for finding in checked["findings"] if finding["level"] == "ok"}
    wanted = {"configuration", "private key", "certificate", "client CA"} | ({"crl"} if "crl = " in open(config).read() else set())
    if not wanted <= good:
        sys.exit(f"{where}: {wanted - good} not well: {json.dumps(checked['findings'], indent=1)}")
    budget = checked["budget"]
    grace, pre_stop = spec["terminationGracePeriodSeconds"], container["lifecycle"]["preStop"]["sleep"]["seconds"]
    if (grace - pre_stop) * 1000 <= budget["drain_ms"]:
        sys.exit(f"{where}: {grace} s of grace, {pre_stop} s of preStop, and the drain takes {budget['drain_ms']} ms")
    memory = int(container["resources"]["limits"]["memory"].removesuffix("Mi").replace("1Gi", "1024")) << 20
    if memory < budget["memory_bytes_max"]:
        sys.exit(f"{where}: {memory} bytes of memory, and the bridge can take {budget['memory_bytes_max']}")
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    for name, section in ("events", "ingress"), ("admin", "admin"):
        # The addresses are the first `listen` of their sections.
        [listen] = re.findall(rf'^\[{section}\]\n(?:.*\n)*?\s*listen = "(.*)"', open(config).read(), re.MULTILINE)
        if not listen.endswith(f":{ports[name]}"):
            sys.exit(f"{where}: port {name} is {ports[name]}, and the bridge listens at {listen}")
    print(f"{where}: drain {budget['drain_ms']} ms of {grace} s, memory {budget['memory_bytes_max'] >> 20} of {memory >> 20} MiB")


def run(bridge, *args, **env):
    path = {"PATH": os.environ["PATH"]}
    return subprocess.run([bridge, *args], capture_output=True, text=True, env={**path, **env}, timeout=120)


main(sys.argv[1], sys.argv[2:])
