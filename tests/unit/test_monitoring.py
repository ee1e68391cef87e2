"""What watches the service: rules, dashboard and documents speak of metrics that exist, and of every one of them."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from rewardpoints.telemetry import NAMESPACE, Metrics

REPOSITORY = Path(__file__).parents[2]
PROMETHEUS = REPOSITORY / "deploy" / "prometheus"
GRAFANA = REPOSITORY / "deploy" / "grafana"
DASHBOARD = GRAFANA / "dashboards" / "rewardpoints.json"
OPERATIONS = REPOSITORY / "docs" / "operations.md"
ADDED_BY_PROMETHEUS = {"job", "instance", "le"}
PROMTOOL = shutil.which("promtool", path=f"{REPOSITORY / '.cache/promtool/usr/bin'}:/usr/local/bin:/usr/bin:/bin")
OF_A_SAMPLE = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "info": ("_info",), "gauge": ("",)}


def kept() -> Mapping[str, frozenset[str]]:
    """Each metric of a process as it is documented, with its labels."""
    found = {}
    for metric in vars(Metrics()).values():
        for family in metric.describe() if hasattr(metric, "describe") else ():
            suffix = OF_A_SAMPLE[family.type][0]
            labels = metric._labelnames
            found[family.name + ("" if suffix == "_bucket" else suffix)] = frozenset(labels)
    return found


def exposed() -> Mapping[str, frozenset[str]]:
    """Each name a scrape shows, with its labels; those of the process itself too."""
    described = kept()
    found: dict[str, frozenset[str]] = {}
    for family in Metrics().registry.collect():
        names = [family.name + suffix for suffix in OF_A_SAMPLE[family.type]]
        labels = next((described[name] for name in (*names, family.name) if name in described), frozenset[str]())
        found.update(dict.fromkeys(names, labels))
    return found


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((PROMETHEUS / "rules.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return found


def expressions() -> Iterator[Any]:
    for rule in rules():
        yield pytest.param(rule["expr"], id=rule["alert"])
    for panel in panels():
        for target in panel.get("targets", ()):
            yield pytest.param(target["expr"], id=f"{panel['title']} {target['refId']}")


def named(text: str) -> set[str]:
    return set(re.findall(rf"(?<![.\w])(?:{NAMESPACE}|process)_[a-z_]+", text))


@pytest.mark.parametrize("expression", list(expressions()))
def test_rules_and_dashboard_ask_for_metrics_and_labels_that_exist(expression: str) -> None:
    shown = exposed()
    names = named(expression)
    assert names - shown.keys() == set()
    assert names or expression.startswith("up{")
    known = ADDED_BY_PROMETHEUS.union(*(shown[name] for name in names), {"version"})
    grouped = {label for labels in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression) for label in labels.split(", ")}
    assert grouped - known - {""} == set()
    for name, selector in re.findall(r"([a-z_]+)\{([^}]*)\}", expression):
        asked = set(re.findall(r"([a-z_]+)\s*(?:=~|!~|!=|=)", selector))
        assert asked - ADDED_BY_PROMETHEUS - shown.get(name, set()) == set(), name


@pytest.mark.parametrize(
    "document", [*sorted((REPOSITORY / "docs").rglob("*.md")), REPOSITORY / "README.md"], ids=lambda path: path.name
)
def test_documents_name_only_metrics_that_exist(document: Path) -> None:
    assert named(document.read_text()) - exposed().keys() - kept().keys() == set()


def test_every_metric_is_documented_with_its_labels() -> None:
    documented = {
        name: frozenset(labels.split(",")) if labels else frozenset()
        for name, labels in re.findall(r"`([a-z_]+)(?:\{([a-z,]+)\})?`", _table_of_metrics())
    }
    assert {name: labels for name, labels in documented.items() if name.startswith(NAMESPACE)} == kept()


def _table_of_metrics() -> str:
    text = OPERATIONS.read_text()
    start = text.index("## What to watch")
    return text[start : text.index("\n## ", start)]


def anchors(text: str) -> set[str]:
    """The headings as GitHub links to them."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_every_alert_says_who_must_come_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"page", "ticket"}
    document, _, anchor = rule["annotations"]["runbook"].partition("#")
    assert anchor in anchors((REPOSITORY / document).read_text())
    assert f"`{rule['alert']}`" in OPERATIONS.read_text()


def test_every_alert_has_a_unit_test_in_which_it_fires() -> None:
    tests = yaml.safe_load((PROMETHEUS / "rules_test.yaml").read_text())["tests"]
    firing = {case["alertname"] for test in tests for case in test.get("alert_rule_test", ()) if case.get("exp_alerts")}
    assert firing == {rule["alert"] for rule in rules()}


def test_the_dashboard_can_be_provisioned() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    assert dashboard["uid"] == "rewardpoints"
    assert "id" not in dashboard  # Grafana gives it
    ids = [panel["id"] for panel in panels()]
    assert len(set(ids)) == len(ids)
    assert all(panel["datasource"]["uid"] == "${datasource}" for panel in panels() if panel["type"] != "row")
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, f"{panel['title']} covers another"
        assert at["x"] + at["w"] <= 24
        taken |= cells
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/rewardpoints.yaml").read_text())["providers"]
    grafana = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())["services"]["grafana"]
    assert f"./deploy/grafana/dashboards:{provider['options']['path']}:ro" in grafana["volumes"]


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    if PROMTOOL is None:
        pytest.skip("promtool is not installed: `make promtool`, or apt install prometheus")
    return subprocess.run([PROMTOOL, *arguments], capture_output=True, text=True, timeout=60, check=False)  # noqa: S603 - found above


@pytest.mark.parametrize(
    "arguments",
    [("check", "config", "prometheus.yaml"), ("check", "rules", "rules.yaml"), ("test", "rules", "rules_test.yaml")],
)
def test_promtool_finds_nothing_wrong(arguments: tuple[str, ...]) -> None:
    answer = promtool(*arguments[:-1], PROMETHEUS / arguments[-1])
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_the_unit_tests_of_the_rules_notice_alerts_that_never_fire(tmp_path: Path) -> None:
    content = yaml.safe_load((PROMETHEUS / "rules.yaml").read_text())
    for group in content["groups"]:
        for rule in group["rules"]:
            rule["expr"] = f"({rule['expr']}) and on () vector(0) == 1"
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(content))
    shutil.copy(PROMETHEUS / "rules_test.yaml", tmp_path)
    answer = promtool("test", "rules", tmp_path / "rules_test.yaml")
    assert answer.returncode != 0
    missed = set(re.findall(r"alertname: ?(\w+)", answer.stdout + answer.stderr))
    assert missed == {rule["alert"] for rule in rules()}
