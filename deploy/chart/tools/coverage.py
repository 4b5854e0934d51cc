"""Every value of values.yaml has a description and is set by a test, every template has tests, and the chart knows exactly the bridge's keys and refusals."""

import json
import pathlib
import re
import sys

import yaml

chart = pathlib.Path(__file__).parents[1] / "causeway"
repository = chart.parents[2]
# Keys that the chart sets by itself, so nobody else may set them.
DERIVED = {
    "ingress.listen", "ingress.tls.certificate", "ingress.tls.private_key", "ingress.tls.client_ca", "ingress.tls.crl",
    "admin.listen", "registry.ca", "registry.password_file", "registry.token_file", "registry.certificate", "registry.private_key",
}
# Secrets have no place in a ConfigMap.
SECRET = {"registry.password", "registry.token"}


def leaves(value, path=""):
    if isinstance(value, dict) and value and path not in ("autoscaling.behavior",):
        for key, below in value.items():
            yield from leaves(below, f"{path}.{key}" if path else key)
    else:
        yield path


def set_paths(value, path=""):
    """Every path at which a test sets something, those above it too."""
    yield path
    if isinstance(value, dict):
        for key, below in value.items():
            yield from set_paths(below, f"{path}.{key}" if path else key)


def main():
    faults = []
    tested, templates = set(), set()
    for file in sorted((chart / "tests").glob("*_test.yaml")):
        for suite in filter(None, yaml.safe_load_all(open(file))):
            templates |= set(suite.get("templates", []))
            for test in [suite, *suite["tests"]]:
                tested |= set(set_paths(test.get("set", {})))
                templates |= {assertion.get("template") for assertion in test.get("asserts", [])} | {test.get("template")}
    for path in leaves(yaml.safe_load(open(chart / "values.yaml"))):
        if path not in tested:
            faults.append(f"no test sets {path}")
    for template in (chart / "templates").rglob("*"):
        name = str(template.relative_to(chart / "templates"))
        if template.is_file() and not template.name.startswith("_") and name not in templates:
            faults.append(f"no test is about templates/{name}")

    for row in (chart / "README.md").read_text().splitlines():
        if re.fullmatch(r"\| [a-zA-Z0-9._]+ \|.*\|\s*\|", row):
            faults.append(f"no description: {row}")

    schema = json.load(open(chart / "values.schema.json"))
    known = set(keys(schema["properties"]["config"], schema))
    bridge = set(re.findall(r'^    key\("([^"]+)"', (repository / "src/config/keys.rs").read_text(), re.MULTILINE))
    if len(bridge) < 30:
        faults.append(f"only {len(bridge)} keys were found in src/config/keys.rs")
    faults += [f"the schema lacks config.{key}" for key in sorted(bridge - known - DERIVED - SECRET)]
    faults += [f"the schema has config.{key}, which the bridge has not" for key in sorted(known - bridge)]
    if known & (DERIVED | SECRET):
        faults.append(f"the schema lets {known & (DERIVED | SECRET)} be set")

    faults += client_faults()

    cargo = re.search(r'^version = "(.*)"', (repository / "Cargo.toml").read_text(), re.MULTILINE)[1]
    app = yaml.safe_load(open(chart / "Chart.yaml"))["appVersion"]
    if app != cargo:
        faults.append(f"appVersion is {app}, the bridge is {cargo}")
    if faults:
        sys.exit("\n".join(faults))
    print(f"every value and template is tested; {len(known)} keys of the bridge can be set")


def client_faults():
    """Where the chart's list of what `[kafka.client]` refuses is not the bridge's."""
    client = (repository / "src/config/client.rs").read_text()
    refused, aliases = (re.search(rf"const {name}: .*? = &\[\n(.*?)\n\];", client, re.DOTALL)[1] for name in ("REFUSED", "ALIASES"))
    theirs = {
        "refused": re.findall(r'"([^"]+)"', "".join(re.findall(r"\(\s*&\[(.*?)\]", refused, re.DOTALL))),
        "aliases": [list(pair) for pair in re.findall(r'\("([^"]+)", "([^"]+)"\)', aliases)],
    }
    if len(theirs["refused"]) < 60 or not theirs["aliases"]:
        yield f"only {theirs} was found in src/config/client.rs"
    rules = (chart / "templates/_client.tpl").read_text()
    ours = yaml.safe_load(re.search(r'define "causeway.clientRules" -}}\n(.*?){{- end', rules, re.DOTALL)[1])
    for name, those in theirs.items():
        yield from (f"templates/_client.tpl lacks {each} in {name}" for each in those if each not in ours[name])
        yield from (f"templates/_client.tpl has {each} in {name}, the bridge has not" for each in ours[name] if each not in those)


def keys(schema, whole, path=""):
    """The bridge's key names that the schema takes, with its words for what may be called anything."""
    open_names = {"feeds": "NAME", "kafka.client": "PROPERTY", "feeds.NAME.event_types": "TYPE"}
    below = dict(schema.get("properties", {}))
    if path in open_names:
        below[open_names[path]] = schema["additionalProperties"]
    if not below:
        yield path
    for key, each in below.items():
        yield from keys(each, whole, f"{path}.{key}" if path else key)


main()
