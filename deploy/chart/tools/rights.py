"""Gives a bridge the rights of the rendered KafkaUser, and nothing else, on a real broker: rights.py CAUSEWAY LIBS CHART

The topics come from `causeway topics --apply`, and must be what the rendered KafkaTopics are.
"""

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time

import yaml

from samples import make_samples

VALUES = {
    "config": {
        "ingress": {"tls": {"client_names": ["*"]}, "body_bytes_max": 2_000_000},
        "kafka": {"topics": {"replication": 1, "partitions": 2, "retention_ms": 86_400_000}},
    },
    "tls": {"secretName": "tls", "clientCA": {"secretName": "ca"}},
    "strimzi": {"enabled": True, "cluster": "c", "listenerTLS": False, "user": {"name": "bridge", "authentication": "scram-sha-512"}},
}
WARMED = "events of an earlier run are remembered"


def main(bridge, libs, chart):
    bridge = os.path.abspath(bridge)
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        folder = pathlib.Path(scratch)
        samples = make_samples(folder / "samples")
        broker = Broker(libs, folder / "broker", stack)
        cold, warm = (render(chart, warm, folder) for warm in (False, True))

        open_config = configuration(cold, samples, folder / "open.toml", f"127.0.0.1:{broker.open}", secured=False)
        made = json.loads(command(bridge, "topics", "--apply", "--json", "--config", open_config).stdout)["topics"]
        compare(made, cold)

        config = configuration(cold, samples, folder / "cold.toml", f"127.0.0.1:{broker.secured}", secured=True)
        refused = json.loads(command(bridge, "topics", "--json", "--config", config, code=3).stdout)["topics"]
        assert all(topic["state"] == "missing" for topic in refused), refused
        broker.allow(cold)
        seen = json.loads(command(bridge, "topics", "--json", "--config", config).stdout)["topics"]
        assert all(topic["retention_ms"] == 86_400_000 for topic in seen), f"settings are not to be read: {seen}"
        first, _ = post(bridge, config, samples, folder)

        config = configuration(warm, samples, folder / "warm.toml", f"127.0.0.1:{broker.secured}", secured=True)
        second, log = post(bridge, config, samples, folder)
        assert WARMED not in log, "a user without Read has read"
        broker.allow(warm)
        again, log = post(bridge, config, samples, folder)
        assert WARMED in log, log
        assert again in (first, second), f"{first} and {second} are not remembered: {again}"
    print("the KafkaUser's rights are what the bridge needs, and the KafkaTopics what it would create")


class Broker:
    """One node with an authorizer: whoever comes to `open` may do everything, at `secured` a user needs rights."""

    def __init__(self, libs, folder, stack):
        folder.mkdir()
        self.libs, self.folder = libs, folder
        self.open, self.secured, controller = free_port(), free_port(), free_port()
        listeners = f"PLAINTEXT://127.0.0.1:{self.open},SASL_PLAINTEXT://127.0.0.1:{self.secured}"
        login = "org.apache.kafka.common.security.plain.PlainLoginModule"
        properties = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "listeners": f"{listeners},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": listeners,
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "PLAINTEXT",
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.sasl_plaintext.plain.sasl.jaas.config": f'{login} required user_bridge="word";',
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
            "log.dirs": folder / "data",
            "auto.create.topics.enable": "false",
        }
        file = folder / "server.properties"
        file.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
        self.java("kafka.tools.StorageTool", "format", "-t", "4L6g3nShT-eMCtK--X86sw", "-c", str(file))
        log = stack.enter_context(open(folder / "log", "w"))
        command = ["java", "-Xmx256m", "-XX:-UsePerfData", "-cp", f"{libs}/*", "kafka.Kafka", str(file)]
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        stack.callback(process.wait)
        stack.callback(process.kill)
        wait_for(lambda: listens(self.secured), process, folder / "log")

    def allow(self, objects):
        """What Strimzi would do with the KafkaUser."""
        [user] = [each for each in objects if each["kind"] == "KafkaUser"]
        # One call for all that share their rights: each starts a JVM.
        calls = {}
        for acl in user["spec"]["authorization"]["acls"]:
            resource = acl["resource"]
            rights = (resource["patternType"], *acl["operations"])
            calls.setdefault(rights, []).extend([f"--{resource['type']}", resource["name"]])
        for (pattern, *operations), resources in calls.items():
            tool = ["org.apache.kafka.tools.AclCommand", "--bootstrap-server", f"127.0.0.1:{self.open}"]
            what = [word for operation in operations for word in ("--operation", operation)]
            self.java(*tool, "--add", "--allow-principal", "User:bridge", "--resource-pattern-type", pattern, *what, *resources)

    def java(self, *args):
        command = ["java", "-Xmx128m", "-XX:-UsePerfData", "-cp", f"{self.libs}/*", *args]
        subprocess.run(command, cwd=self.folder, check=True, capture_output=True)


def render(chart, warm, folder):
    values = folder / "values.yaml"
    values.write_text(yaml.safe_dump({**VALUES, "config": {**VALUES["config"], "dedupe": {"warm": warm}}}))
    done = subprocess.run(["helm", "template", "release", chart, "--values", values], check=True, capture_output=True)
    return [each for each in yaml.safe_load_all(done.stdout) if each]


def configuration(objects, samples, file, brokers, secured):
    """The rendered configuration, with the paths, ports and brokers of here. The broker knows PLAIN, Strimzi SCRAM."""
    [config] = [each for each in objects if each["kind"] == "ConfigMap"]
    text = config["data"]["causeway.toml"]
    lines = text.splitlines()
    if not secured:
        lines = [line for line in lines if '"sasl.' not in line and '"security.protocol"' not in line]
    text = "\n".join(lines).replace("SCRAM-SHA-512", "PLAIN").replace("c-kafka-bootstrap.default.svc:9093", brokers)
    for folder in "tls", "client-ca", "kafka-sasl":
        text = text.replace(f"/etc/causeway/{folder}/", f"{samples}/")
    file.write_text(text.replace("0.0.0.0:8443", "127.0.0.1:0").replace("0.0.0.0:9090", "127.0.0.1:0"))
    return file


def compare(made, objects):
    specs = {each["spec"]["topicName"]: each["spec"] for each in objects if each["kind"] == "KafkaTopic"}
    assert len(made) == len(specs) == 5, (made, specs)
    for topic in made:
        spec = specs[topic["topic"]]
        config = {key: int(value) for key, value in spec["config"].items() if value.lstrip("-").isdigit()}
        wanted = {
            "partitions": spec["partitions"],
            "replication": spec["replicas"],
            "min_insync_replicas": config["min.insync.replicas"],
            "retention_ms": config["retention.ms"],
            "max_message_bytes": config["max.message.bytes"],
        }
        found = {key: topic[key] for key in wanted}
        assert found == wanted, f"{topic['topic']}: the bridge makes {found}, the chart {wanted}"


def post(bridge, config, samples, folder):
    """Starts the bridge and posts one event, always the same; gives its receipt and the log."""
    ready, log = folder / "ready.json", folder / "serve.log"
    ready.unlink(missing_ok=True)
    with open(log, "w") as out:
        process = subprocess.Popen([bridge, "serve", "--config", config, "--ready-file", ready], stdout=out, stderr=out)
        try:
            wait_for(lambda: ready.exists() and ready.read_text(), process, log)
            port = json.loads(ready.read_text())["ingress"].rsplit(":", 1)[1]
            body = '{"api_version": "1.0", "name": "com.asapp.event.journey", "event_id": "e-1", "event_type": "STARTED"}'
            tls = ["--cacert", "ca.crt", "--cert", "tls.crt", "--key", "tls.key", "--connect-to", f"::127.0.0.1:{port}"]
            curl = ["curl", "--silent", "--show-error", "--fail", *tls, "https://events.example/events", "--data-binary", body]
            answer = json.loads(subprocess.run(curl, cwd=samples, check=True, capture_output=True).stdout)
        finally:
            process.terminate()
            code = process.wait()
    assert code == 0, (code, log.read_text())
    return answer, log.read_text()


def command(bridge, *args, code=0):
    done = subprocess.run([bridge, *map(str, args)], capture_output=True, text=True)
    assert done.returncode == code, (args, done.returncode, done.stdout, done.stderr)
    return done


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def listens(port):
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def wait_for(condition, process, log):
    until = time.monotonic() + 120
    while not condition():
        if process.poll() is not None or time.monotonic() > until:
            sys.exit(f"{process.args[0]} did not start:\n{log.read_text()}")
        time.sleep(0.05)


main(*sys.argv[1:])
