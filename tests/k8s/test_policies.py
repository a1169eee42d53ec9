"""What we ask of our own manifests, beyond what an API server would refuse."""

import tomllib
from ipaddress import ip_network

import pytest

from clients.client import LOOK_UP_MS
from clients.slack import behind, serve
from clients.supervised import INFERENCE
from services.crawler.__main__ import SERVICE as CRAWLER_SERVICE
from services.inference.__main__ import DRAIN_SECONDS
from services.shared import addresses, harness, settings
from services.trainer.__main__ import SERVICE as TRAINER_SERVICE
from tests.k8s.rendered import (
    EVERY,
    K8S,
    ROOT,
    SERVICES,
    Object,
    containers,
    named,
    of_kind,
    pods,
    rendered,
)

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
IMAGES = {f"emojinet-{name}" for name in (*SERVICES, "web")}
PORTS = {"inference": (50051, 9101), "crawler": (50052, 9102), "trainer": (50053, 9103)}
NODE_LOCAL_DNS = "169.254.20.10/32"
MARGIN_SECONDS = 5.0  # for workers to end, after the drain
WEB_STOP_SECONDS = 5.0
AUTOSCALED = [name for name in EVERY if "scaled" in name or "gpu" in name or "keda" in name]


def each_container(overlay: str) -> list[tuple[str, Object]]:
    return [(name, c) for name, pod in pods(rendered(overlay)) for c in containers(pod)]


@pytest.mark.parametrize("overlay", EVERY)
def test_images_are_ours_and_of_this_version(overlay: str) -> None:
    for _, container in each_container(overlay):
        name, _, tag = container["image"].rpartition(":")
        assert name in IMAGES
        assert tag == VERSION + ("-cuda" if overlay == "gpu" and name in GPU_IMAGES else "")


GPU_IMAGES = {"emojinet-inference", "emojinet-trainer"}


@pytest.mark.parametrize("overlay", EVERY)
def test_every_container_says_what_it_needs_and_what_it_may_take(overlay: str) -> None:
    for name, container in each_container(overlay):
        for amount in ("requests", "limits"):
            assert {"cpu", "memory"} <= set(container["resources"][amount]), name


@pytest.mark.parametrize("overlay", EVERY)
def test_only_the_gpu_overlay_asks_for_a_gpu_and_only_for_inference(overlay: str) -> None:
    asking = {
        (name, container["resources"]["limits"]["nvidia.com/gpu"])
        for name, container in each_container(overlay)
        if "nvidia.com/gpu" in container["resources"]["limits"]
    }
    assert asking == ({("emojinet-inference", 1)} if overlay == "gpu" else set())


@pytest.mark.parametrize("overlay", EVERY)
def test_pods_are_restricted_as_the_pod_security_standard_says(overlay: str) -> None:
    objects = rendered(overlay)
    labels = named(objects, "Namespace", "emojinet")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    for name, pod in pods(objects):
        spec, context = pod["spec"], pod["spec"]["securityContext"]
        assert context["runAsNonRoot"] is True, name
        assert context["runAsUser"] >= 10_000, name
        assert context["runAsGroup"] >= 10_000, name  # left out it is root's
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not any(spec.get(f"host{what}") for what in ("Network", "PID", "IPC")), name
        allowed = {"persistentVolumeClaim", "projected", "emptyDir"}
        assert {kind for volume in spec["volumes"] for kind in volume} <= {"name", *allowed}, name
        for container in containers(pod):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert all("hostPort" not in port for port in container.get("ports", ())), name


@pytest.mark.parametrize("overlay", EVERY)
def test_pods_get_neither_a_token_nor_the_environment_of_services(overlay: str) -> None:
    for name, pod in pods(rendered(overlay)):
        assert pod["spec"]["automountServiceAccountToken"] is False, name
        assert pod["spec"]["enableServiceLinks"] is False, name


@pytest.mark.parametrize("overlay", EVERY)
def test_what_is_written_is_written_to_volumes(overlay: str) -> None:
    for name, container in each_container(overlay):
        assert {"name": "HOME", "value": "/tmp"} in container["env"], name
        mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
        assert "/tmp" in mounts, name
    objects = rendered(overlay)
    (serving,) = dict(pods(objects))["emojinet-inference"]["spec"]["containers"]
    (registry,) = (m for m in serving["volumeMounts"] if m["name"] == "registry")
    assert registry["readOnly"] is True


@pytest.mark.parametrize("overlay", EVERY)
def test_settings_are_known_to_the_programs(overlay: str) -> None:
    objects = rendered(overlay)
    told = {
        name
        for config in of_kind(objects, "ConfigMap")
        for name in config["data"]
        if not name.endswith(".json")
    }
    told |= {each["name"] for _, c in each_container(overlay) for each in c["env"]}
    assert told - settings.KNOWN == {"HOME", "RUN", "RECIPE", "DATASET"}


@pytest.mark.parametrize("overlay", EVERY)
def test_settings_and_secrets_are_no_part_of_a_pod(overlay: str) -> None:
    objects = rendered(overlay)
    assert of_kind(objects, "Secret") == []
    for name, container in each_container(overlay):
        assert all("secretKeyRef" not in each.get("valueFrom", {}) for each in container["env"])
        for source in container.get("envFrom", ()):
            assert "secretRef" not in source, name
            # A hash at the end of its name: who changes it rolls out the pods.
            assert len(source["configMapRef"]["name"].rpartition("-")[2]) == 10


@pytest.mark.parametrize("overlay", EVERY)
def test_probes_ask_what_the_code_answers(overlay: str) -> None:
    # Ready and live are names of their own: a long line must not have a pod killed.
    objects = rendered(overlay)
    for service in SERVICES:
        (container,) = dict(pods(objects))[f"emojinet-{service}"]["spec"]["containers"]
        asked = {
            kind: container[f"{kind}Probe"]["grpc"] for kind in ("startup", "liveness", "readiness")
        }
        assert asked["liveness"]["service"] == harness.LIVE
        assert asked["readiness"]["service"] == harness.READY
        assert asked["startup"]["service"] == (
            harness.READY if service == "inference" else harness.LIVE
        )
        grpc, metrics = PORTS[service]
        assert [p["containerPort"] for p in container["ports"]] == [grpc, metrics]
        assert {each["port"] for each in asked.values()} == {50061 if "tls" in overlay else grpc}


def test_ports_are_those_that_the_programs_have_by_default() -> None:
    assert PORTS["inference"][0] == INFERENCE.port
    assert CRAWLER_SERVICE.full_name.startswith("emojinet.v1.")
    assert TRAINER_SERVICE.full_name.startswith("emojinet.v1.")


@pytest.mark.parametrize("overlay", EVERY)
def test_a_pod_has_time_to_finish_what_it_has_admitted(overlay: str) -> None:
    objects = rendered(overlay)
    for name, drain in (("emojinet-inference", DRAIN_SECONDS), ("emojinet-web", WEB_STOP_SECONDS)):
        spec = dict(pods(objects))[name]["spec"]
        first = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert first >= 3, "clients have to hear first that the address is gone"
        assert spec["terminationGracePeriodSeconds"] >= first + drain + MARGIN_SECONDS


def test_no_client_has_a_connection_left_to_a_pod_that_ends() -> None:
    (container,) = dict(pods(rendered("cpu")))["emojinet-inference"]["spec"]["containers"]
    first = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    # Ours and gRPC's own jitter each add a tenth.
    assert first >= 1.21 * harness.CONNECTION_AGE_MS / 1000 + LOOK_UP_MS / 1000


@pytest.mark.parametrize("overlay", EVERY)
def test_a_rollout_takes_no_capacity_away_and_a_drained_node_little(overlay: str) -> None:
    objects = rendered(overlay)
    for name in ("emojinet-inference", "emojinet-web"):
        deployment = named(objects, "Deployment", name)["spec"]
        assert deployment["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
        spread = deployment["template"]["spec"]["topologySpreadConstraints"]
        assert "kubernetes.io/hostname" in {each["topologyKey"] for each in spread}
        budget = named(objects, "PodDisruptionBudget", name)["spec"]
        assert (budget["maxUnavailable"], budget["unhealthyPodEvictionPolicy"]) == (
            1,
            "AlwaysAllow",
        )


@pytest.mark.parametrize("overlay", EVERY)
def test_of_programs_that_lock_their_folder_there_is_one_at_a_time(overlay: str) -> None:
    for name in ("emojinet-crawler", "emojinet-trainer"):
        spec = named(rendered(overlay), "Deployment", name)["spec"]
        assert (spec["replicas"], spec["strategy"]["type"]) == (1, "Recreate")


@pytest.mark.parametrize("overlay", EVERY)
def test_clients_can_see_every_replica_of_a_grpc_service(overlay: str) -> None:
    for service in SERVICES:
        spec = named(rendered(overlay), "Service", f"emojinet-{service}")["spec"]
        assert spec["clusterIP"] == "None"
        assert "publishNotReadyAddresses" not in spec


@pytest.mark.parametrize("overlay", EVERY)
def test_what_is_mounted_by_one_node_keeps_its_pods_on_one_node(overlay: str) -> None:
    objects = rendered(overlay)
    modes = {c["spec"]["accessModes"][0] for c in of_kind(objects, "PersistentVolumeClaim")}
    for name, pod in pods(objects):
        claims = [v for v in pod["spec"]["volumes"] if "persistentVolumeClaim" in v]
        assert (pod["metadata"]["labels"].get("emojinet/volumes") == "shared") is bool(claims)
        tied = "podAffinity" in pod["spec"].get("affinity", {})
        assert tied == (bool(claims) and modes == {"ReadWriteOnce"}), name
    assert modes == {"ReadWriteMany" if overlay in AUTOSCALED else "ReadWriteOnce"}


@pytest.mark.parametrize("overlay", EVERY)
def test_replicas_are_said_by_one_alone(overlay: str) -> None:
    objects = rendered(overlay)
    scalers = of_kind(objects, "HorizontalPodAutoscaler", "ScaledObject")
    assert len(scalers) == (1 if overlay in AUTOSCALED else 0)
    for scaler in scalers:
        target = scaler["spec"]["scaleTargetRef"]["name"]
        assert "replicas" not in named(objects, "Deployment", target)["spec"]
    assert "replicas" not in named(objects, "Deployment", "emojinet-inference")["spec"]


def test_both_autoscalers_behave_alike() -> None:
    hpa = named(rendered("cpu-scaled"), "HorizontalPodAutoscaler", "emojinet-inference")["spec"]
    keda = named(rendered("cpu+keda"), "ScaledObject", "emojinet-inference")["spec"]
    theirs = keda["advanced"]["horizontalPodAutoscalerConfig"]
    assert hpa["behavior"] == theirs["behavior"]
    assert (hpa["minReplicas"], hpa["maxReplicas"]) == (
        keda["minReplicaCount"],
        keda["maxReplicaCount"],
    )
    targets = [metric["pods"]["target"]["averageValue"] for metric in hpa["metrics"]]
    thresholds = [trigger["metadata"]["threshold"] for trigger in keda["triggers"]]
    assert [f"{float(each) * 1000:.0f}m" for each in thresholds] == targets


def test_the_autoscaler_of_zero_replicas_takes_no_series_for_no_error() -> None:
    for overlay, expected in (("cpu+keda", "false"), ("cpu+keda+to-zero", "true")):
        triggers = named(rendered(overlay), "ScaledObject", "emojinet-inference")["spec"][
            "triggers"
        ]
        asked = [t["metadata"]["ignoreNullValues"] for t in triggers if t["type"] == "prometheus"]
        assert asked == [expected] * 2


# -- the network ----------------------------------------------------------------------------------


def policies(overlay: str) -> dict[str, Object]:
    found = of_kind(rendered(overlay), "NetworkPolicy")
    return {each["metadata"]["name"]: each["spec"] for each in found}


@pytest.mark.parametrize("overlay", [name for name in EVERY if name != "dev"])
def test_without_a_rule_nothing_goes_in_or_out(overlay: str) -> None:
    deny = policies(overlay)["deny-all"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def reaching(overlay: str) -> dict[str, list[tuple[Object, list[Object]]]]:
    """Which policies let out to addresses, with the ports there."""
    found: dict[str, list[tuple[Object, list[Object]]]] = {}
    for name, spec in policies(overlay).items():
        for rule in spec.get("egress", ()):
            assert rule.get("to"), f"{name} lets out to anywhere"
            for block in (to["ipBlock"] for to in rule["to"] if "ipBlock" in to):
                if block["cidr"] != NODE_LOCAL_DNS:
                    found.setdefault(name, []).append((block, rule["ports"]))
    return found


@pytest.mark.parametrize(
    ("overlay", "who"), [("cpu", {"crawler"}), ("cpu+slack", {"crawler", "slack"})]
)
def test_only_the_crawler_and_the_bot_reach_the_internet_and_nothing_private(
    overlay: str, who: set[str]
) -> None:
    assert set(reaching(overlay)) == who
    refused = {ip_network(text) for text in addresses.REFUSED.split()}
    for block, ports in (each for found in reaching(overlay).values() for each in found):
        within = ip_network(block["cidr"])
        ours = {n for n in refused if n.version == within.version and n.subnet_of(within)}  # type: ignore[arg-type]
        assert {ip_network(text) for text in block["except"]} == ours
        assert {port["port"] for port in ports} == set(addresses.PORTS)
    outside = [n for n in refused if n.version == 6 and not n.subnet_of(ip_network("2000::/3"))]  # type: ignore[arg-type]
    assert outside  # which the policy leaves out by allowing no more than 2000::/3


def test_the_bot_is_one_and_has_time_for_what_it_has_acknowledged() -> None:
    spec = named(rendered("cpu+slack"), "Deployment", "emojinet-slack")["spec"]
    assert (spec["replicas"], spec["strategy"]["type"]) == (1, "Recreate")
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"] == ["emojinet", "slack"]
    first = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    ending = serve.STOP_SECONDS + behind.STOP_SECONDS
    assert pod["terminationGracePeriodSeconds"] >= first + ending + MARGIN_SECONDS


@pytest.mark.parametrize("overlay", ["cpu", "cpu+slack"])
def test_ports_that_policies_name_exist(overlay: str) -> None:
    templates = dict(pods(rendered(overlay)))
    ports = {
        p["name"] for pod in templates.values() for c in containers(pod) for p in c.get("ports", ())
    }
    for spec in policies(overlay).values():
        for rule in (*spec.get("ingress", ()), *spec.get("egress", ())):
            assert {p["port"] for p in rule["ports"] if isinstance(p["port"], str)} <= ports


def test_components_are_all_rendered_by_some_test() -> None:
    made = {
        path.parent.relative_to(K8S / "components")
        for path in K8S.glob("components/**/kustomization.yaml")
    }
    assert {str(path) for path in made} == {
        "keda",
        "keda/to-zero",
        "many-nodes",
        "monitoring",
        "network-policies",
        "prometheus-adapter",
        "slack",
        "tls",
        "tls/clients",
    }


def test_where_clients_need_certificates_every_server_asks_and_the_page_has_one() -> None:
    objects = rendered("cpu+tls+clients")
    configs = {
        c["metadata"]["name"].rpartition("-")[0]: c["data"] for c in of_kind(objects, "ConfigMap")
    }
    for service in SERVICES:
        assert configs[f"emojinet-{service}"]["EMOJINET_TLS_CLIENT_CA"] == "/secrets/ca.crt"
        assert "EMOJINET_TLS_CERT" in configs[f"emojinet-{service}"]
    (volume,) = (
        v for v in dict(pods(objects))["emojinet-web"]["spec"]["volumes"] if "projected" in v
    )
    mounted = {
        f"/secrets/{item['path']}"
        for source in volume["projected"]["sources"]
        for item in source["secret"].get("items", ())
    }
    web = configs["emojinet-web"]
    assert mounted == {web["EMOJINET_CLIENT_CERT"], web["EMOJINET_CLIENT_KEY"]}
