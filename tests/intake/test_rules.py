"""The rules by which Prometheus raises alarms about the runbooks themselves."""

import re
from pathlib import Path

import yaml
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from deployments.intake.metrics import Metrics

RULES = Path(__file__).parents[2] / "deployments" / "grafana" / "mrs-runbooks-rules.yaml"


def test_the_rules_ask_for_what_there_is() -> None:
    """Every metric that a rule names is a gauge of the intake's `/metrics`, and every rule says what to do."""
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    exposed = text_string_to_metric_families(generate_latest(Metrics().registry).decode())
    gauges = {family.name for family in exposed if family.type == "gauge"}
    asked = {name for rule in group["rules"] for name in re.findall(r"\brunbooks_\w+", rule["expr"])}
    assert asked - gauges == set()
    assert [rule["alert"] for rule in group["rules"] if not all(rule["annotations"].values())] == []
    assert all(set(rule["annotations"]) == {"summary", "description"} for rule in group["rules"])
