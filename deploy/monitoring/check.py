#!/usr/bin/env python3
"""Holds that each alert is complete: what it says, its runbook page, its tests."""

import pathlib
import re
import sys

import yaml

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
ALERTS = ROOT / "deploy/chart/causeway/files/alerts.yaml"
TESTS = HERE / "tests"
PAGES = ROOT / "docs/runbooks"
URL = "https://causeway.example/docs/runbooks/"
SECTIONS = ["What it means", "How to look", "What to do", "When it is over"]
SEVERITIES = {"critical", "warning", "info"}


def alerts():
    rules = (rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"])
    return {rule["alert"]: rule for rule in rules if "alert" in rule}


def faults_of(name, rule):
    """What is wrong with an alert, its page and its tests."""
    says = rule.get("annotations", {})
    if rule.get("labels", {}).get("severity") not in SEVERITIES:
        yield f"severity is none of {sorted(SEVERITIES)}"
    if not says.get("summary", "").endswith("."):
        yield "the summary is no sentence"
    if "$value" not in says.get("description", "") and "$labels" not in says.get("description", ""):
        yield "the description says neither value nor labels"
    if " First " not in says.get("description", "").replace("\n", " "):
        yield "the description does not say what to do first"
    if says.get("runbook_url") != f"{URL}{name}.md":
        yield f"runbook_url is not {URL}{name}.md"

    page = PAGES / f"{name}.md"
    if not page.is_file():
        yield f"there is no {page.relative_to(ROOT)}"
    else:
        text = page.read_text()
        if not text.lower().startswith(f"# {name}\n\n{rule['labels']['severity']}.".lower()):
            yield "the page does not begin with its name and severity"
        if re.findall(r"^## (.+)$", text, re.M) != SECTIONS:
            yield f"the page's sections are not {SECTIONS}"
        if "```promql" not in text:
            yield "the page has no query"

    test = TESTS / f"{name}.yaml"
    if not test.is_file():
        yield f"there is no {test.relative_to(ROOT)}"
        return
    tests = yaml.safe_load(test.read_text())["tests"]
    cases = [case for part in tests for case in part["alert_rule_test"]]
    if any(case["alertname"] != name for case in cases):
        yield "its tests are of another alert too"
    if not any(case.get("exp_alerts") for case in cases):
        yield "no test has it firing"
    if all(case.get("exp_alerts") for case in cases):
        yield "no test has it not firing"


def main():
    known = alerts()
    faults = [f"{name}: {fault}" for name, rule in known.items() for fault in faults_of(name, rule)]
    index = (PAGES / "README.md").read_text()
    for name, rule in known.items():
        if f"| [{name}]({name}.md) | {rule['labels']['severity']} |" not in index:
            faults.append(f"{name}: not in docs/runbooks/README.md with its severity")
    for folder, suffix in (PAGES, "md"), (TESTS, "yaml"):
        for file in folder.glob(f"*.{suffix}"):
            if file.stem not in known and file.name != "README.md":
                faults.append(f"{file.relative_to(ROOT)} belongs to no alert")
    for page in PAGES.glob("*.md"):
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if "://" not in link and not (page.parent / link).exists():
                faults.append(f"{page.relative_to(ROOT)} links to {link}, which is not there")
    if faults:
        sys.exit("\n".join(faults))
    print(f"{len(known)} alerts, each with its page and its tests")


main()
