"""What runs the service in containers gives it no rights it has no use for."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from rewardpoints.settings import HttpSettings

REPOSITORY = Path(__file__).parents[2]
USER = 10001
OURS = ("setup", "worker", "api")


def test_the_image_runs_as_a_user_without_rights() -> None:
    lines = (REPOSITORY / "deploy" / "Dockerfile").read_text().splitlines()
    instructions = [line.split(maxsplit=1) for line in lines if re.match(r"[A-Z]+ ", line)]
    last_stage = instructions[max(number for number, (name, _) in enumerate(instructions) if name == "FROM") :]
    users = [value for name, value in last_stage if name == "USER"]
    assert users == [str(USER)]  # a number: Kubernetes cannot tell that a name is not root
    assert f"--uid {USER}" in "\n".join(lines)
    after = [name for name, _ in last_stage[[name for name, _ in last_stage].index("USER") :]]
    assert not {"RUN", "COPY", "ADD"} & set(after)  # its own files are not its own to change
    assert not re.search(r"(?i)password|secret|token|ARG ", "\n".join(lines))


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())
    return loaded


@pytest.mark.parametrize("name", OURS)
def test_compose_gives_nothing_to_write_and_no_rights(compose: dict[str, Any], name: str) -> None:
    service = compose["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["user"] == f"{USER}:{USER}"
    assert service["tmpfs"] == ["/tmp"]  # noqa: S108 - inside the container
    assert not {"privileged", "cap_add", "devices", "network_mode", "pid"} & set(service)
    assert all(volume.endswith(":ro") for volume in service.get("volumes", ()))


def test_compose_listens_on_loopback_only(compose: dict[str, Any]) -> None:
    published = [port for service in compose["services"].values() for port in service.get("ports", ())]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_compose_names_only_what_is_there(compose: dict[str, Any]) -> None:
    """Services that are waited for and scraped, volumes, and files of this repository that are mounted."""
    services, volumes = compose["services"], set(compose["volumes"])
    made_beforehand = {"./.rewardpoints/keys/jwks.json"}  # by the command that stands at the file's top
    mounted = {volume.split(":")[0] for service in services.values() for volume in service.get("volumes", ())}
    files = {source for source in mounted if source.startswith(".")}
    assert {source for source in files - made_beforehand if not (REPOSITORY / source).exists()} == set()
    assert mounted - files == volumes
    awaited = {name for service in services.values() for name in service.get("depends_on", ())}
    assert awaited <= services.keys()


def test_monitoring_is_asked_for_and_finds_what_it_watches(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert {name for name, service in services.items() if service.get("profiles") == ["monitoring"]} == {
        "prometheus",
        "grafana",
    }
    scraped = yaml.safe_load((REPOSITORY / "deploy" / "prometheus" / "prometheus.yaml").read_text())["scrape_configs"]
    targets = {target for job in scraped for group in job["static_configs"] for target in group["targets"]}
    listening = {f"{name}:{_health_port(services[name])}" for name in ("worker", "api")}
    assert targets == listening
    (source,) = yaml.safe_load(
        (REPOSITORY / "deploy" / "grafana" / "provisioning" / "datasources" / "prometheus.yaml").read_text()
    )["datasources"]
    (port,) = services["prometheus"]["ports"]
    assert source["url"] == f"http://prometheus:{port.rsplit(':', 1)[1]}"


def _health_port(service: dict[str, Any]) -> str:
    found = re.search(r"127\.0\.0\.1:(\d+)/readyz", service["healthcheck"]["test"][-1])
    assert found is not None
    assert service["environment"]["REWARDPOINTS_HTTP_HOST"] == "0.0.0.0"  # noqa: S104 - inside the container
    return found[1]


def pods() -> list[Any]:
    items = [
        item
        for document in yaml.safe_load_all((REPOSITORY / "deploy" / "kubernetes" / "rewardpoints.yaml").read_text())
        for item in document.get("items", [document])
    ]
    found = [
        pytest.param(item["spec"]["template"]["spec"], id=item["metadata"]["name"])
        for item in items
        if item["kind"] in {"Job", "Deployment", "CronJob"}
    ]
    assert len(found) >= len(OURS)
    return found


@pytest.mark.parametrize("pod", pods())
def test_kubernetes_gives_nothing_to_write_and_no_rights(pod: dict[str, Any]) -> None:
    rights = pod["securityContext"]
    assert rights["runAsNonRoot"] is True
    assert (rights["runAsUser"], rights["runAsGroup"]) == (USER, USER)
    assert rights["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False  # it never speaks to the cluster
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    for container in pod["containers"]:
        rights = container["securityContext"]
        assert rights["readOnlyRootFilesystem"] is True
        assert rights["allowPrivilegeEscalation"] is False
        assert rights["capabilities"] == {"drop": ["ALL"]}
        assert all(mount["readOnly"] for mount in container.get("volumeMounts", ()))
    assert all("hostPath" not in volume for volume in pod.get("volumes", ()))


def test_an_api_serves_on_while_it_is_taken_out_of_the_load_balancer() -> None:
    (pod,) = [one.values[0] for one in pods() if one.id == "rewardpoints-api"]
    (container,) = pod["containers"]
    command, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
    assert command == "sleep"
    assert pod["terminationGracePeriodSeconds"] >= int(seconds) + HttpSettings().drain_seconds + 20


def test_no_variable_with_a_secret_stands_in_a_config_map() -> None:
    text = (REPOSITORY / "deploy" / "kubernetes" / "rewardpoints.yaml").read_text()
    (config,) = [item for item in yaml.safe_load(text)["items"] if item["kind"] == "ConfigMap"]
    assert not [name for name in config["data"] if re.search("PASSWORD|_URI$|_TOKEN$", name)]
