"""The files of ``k8s/``: each fits its schema, a typo in any would not, and what is built of them means what it should."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import manifests
import pytest
from typer.main import get_command
from typos import typos

from octavo.cli import app

needs_kubectl = pytest.mark.skipif(not manifests.can_build(), reason="builds are made by kubectl")
# Not for kustomize: values for somebody else's Helm chart.
HELM_VALUES = {"scaling/hpa/adapter.yaml"}
SOURCE = "pod/pod.yaml"
RUNTIMES = ("octavo", "octavo-gpu", "octavo-knative", "octavo-knative-gpu")
WITH_KEYS = "runtimes/api-keys"
PLAIN = ("plain/cpu", "plain/demo", "plain/gpu", "plain/secured")
SERVICES = ("services/autoscaled", "services/demo", "services/gpu", "services/knative", "services/several-gpus")
DEFAULT_GRACE = 30


def test_every_file_fits_its_schema_and_every_typo_does_not() -> None:
    files = manifests.files()
    wrong_ones = [typo for one in files for typo in typos(one)]
    built = [one for folder in manifests.targets() for one in manifests.build(folder)] if manifests.can_build() else []
    wrong = manifests.wrong_with([*files, *built, *wrong_ones])
    right = len(files) + len(built)
    assert {one.where: errors for one, errors in zip([*files, *built], wrong[:right], strict=True) if errors} == {}
    assert len(wrong_ones) > 1500
    assert [typo.where for typo, errors in zip(wrong_ones, wrong[right:], strict=True) if not errors] == []


def test_kustomizations_name_what_exists_and_every_file_is_named() -> None:
    known = manifests.kustomizations()
    named = {path for folder, content in known.items() for path in manifests.named_files(folder, content)}
    assert [path for path in named if not path.exists()] == []
    assert [path for path in named if path.is_dir() and not (path / "kustomization.yaml").exists()] == []
    files = {path for path in manifests.ROOT.rglob("*") if path.is_file() and path.suffix in {".yaml", ".json", ".env"}}
    own = {path for path in files if path.name == "kustomization.yaml"} | {manifests.ROOT / name for name in HELM_VALUES}
    assert files - own == {path for path in named if path.is_file()}


class Pod(NamedTuple):
    """A pod of ours: of a Deployment, or what KServe makes of a runtime for a service that sets nothing."""

    where: str
    spec: dict[str, Any]
    container: dict[str, Any]


def of_kind(folder: str, kind: str) -> list[dict[str, Any]]:
    return [one.document for one in manifests.build(folder) if one.document["kind"] == kind]


def runtimes() -> dict[str, dict[str, Any]]:
    return {runtime["metadata"]["name"]: runtime["spec"] for runtime in of_kind("runtimes", "ClusterServingRuntime")}


@pytest.fixture(params=[SOURCE, *(pytest.param(where, marks=needs_kubectl) for where in (*RUNTIMES, WITH_KEYS, *PLAIN))])
def pod(request: pytest.FixtureRequest) -> Pod:
    return _pod(request.param)


def _pod(where: str) -> Pod:
    if where == SOURCE:
        (template,) = (one.document["template"] for one in manifests.files() if one.where == SOURCE)
        return Pod(where, template["spec"], template["spec"]["containers"][0])
    if where in RUNTIMES:
        return Pod(where, runtimes()[where], runtimes()[where]["containers"][0])
    if where == WITH_KEYS:
        (runtime,) = of_kind(where, "ClusterServingRuntime")
        return Pod(where, runtime["spec"], runtime["spec"]["containers"][0])
    (deployment,) = of_kind(where, "Deployment")
    spec = deployment["spec"]["template"]["spec"]
    return Pod(where, spec, spec["containers"][0])


def test_a_pod_may_do_nothing_that_it_need_not(pod: Pod) -> None:
    assert pod.container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert pod.where not in PLAIN or pod.spec["automountServiceAccountToken"] is False
    mounts = {mount["name"]: mount for mount in pod.container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod.spec["volumes"]}
    assert set(mounts) == set(volumes)
    assert all(mount.get("readOnly") for name, mount in mounts.items() if "emptyDir" not in volumes[name])
    assert {mounts["tmp"]["mountPath"], _environment(pod)["HOME"]} == {"/tmp"}
    assert "memory" in pod.container["resources"]["limits"]


def _environment(pod: Pod) -> dict[str, str]:
    return {one["name"]: one["value"] for one in pod.container["env"]}


def test_the_server_takes_its_arguments(pod: Pod) -> None:
    arguments = [_expanded(argument, _environment(pod)) for argument in pod.container["args"]]
    command = get_command(app).commands[arguments[0]]  # type: ignore[attr-defined]
    given = command.make_context("serve", arguments[1:]).params
    ports = {port["containerPort"] for port in pod.container["ports"]}
    assert ports <= {given["http_port"], given["grpc_port"], given["metrics_port"]}
    paths = [given[name] for name in ("auth_token_file", "grpc_server_cert", "http_server_key") if given[name]]
    mounts = [mount["mountPath"] for mount in pod.container["volumeMounts"]]
    assert all(any(path.is_relative_to(mount) for mount in mounts) for path in paths)
    assert pod.container["command"] == ["octavo"]
    repository = "/opt/models" if pod.where == "plain/demo" else "/mnt/models"
    assert [str(path) for path in given["model_repository"]] == [repository]
    assert (repository in mounts) == (pod.where in set(PLAIN) - {"plain/demo"})  # KServe mounts what it has fetched


def _expanded(argument: str, environment: dict[str, str]) -> str:
    for name, value in environment.items():
        argument = argument.replace(f"$({name})", value)
    assert "$(" not in argument
    return argument


def test_probes_let_a_long_load_live(pod: Pod) -> None:
    startup, liveness, readiness = (pod.container[f"{name}Probe"] for name in ("startup", "liveness", "readiness"))
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 20 * 60
    assert 20 <= liveness["periodSeconds"] * liveness["failureThreshold"] <= 120
    ports = {port["containerPort"] for port in pod.container["ports"]}
    for probe in (startup, liveness, readiness):
        (handler,) = {"httpGet", "grpc"} & set(probe)
        assert probe[handler]["port"] in ports
        if handler == "httpGet":
            assert probe[handler]["scheme"] == ("HTTPS" if "--http-use-ssl" in pod.container["args"] else "HTTP")
            assert probe[handler]["path"] == f"/v2/health/{'live' if probe is liveness else 'ready'}"
        else:
            assert probe[handler].get("service", "") == ("liveness" if probe is liveness else "")
    if pod.where in PLAIN:
        (deployment,) = of_kind(pod.where, "Deployment")
        assert deployment["spec"]["progressDeadlineSeconds"] > startup["periodSeconds"] * startup["failureThreshold"]


def test_the_drain_ends_inside_the_grace_period(pod: Pod) -> None:
    sleep = pod.container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    grace = pod.spec.get("terminationGracePeriodSeconds", DEFAULT_GRACE)
    assert sleep + float(_environment(pod)["DRAIN_SECONDS"]) + 5 <= grace


def test_a_pod_with_a_gpu_asks_for_its_node(pod: Pod) -> None:
    has_gpu = "nvidia.com/gpu" in pod.container["resources"]["limits"]
    assert has_gpu == ("nodeSelector" in pod.spec) == ("tolerations" in pod.spec) == ("cuda" in pod.container["image"])
    assert has_gpu == any(mount["mountPath"] == "/dev/shm" for mount in pod.container["volumeMounts"])


@needs_kubectl
def test_runtimes_are_what_kserve_wants() -> None:
    assert set(runtimes()) == set(RUNTIMES)
    for name, spec in runtimes().items():
        (container,) = spec["containers"]
        assert container["name"] == "kserve-container"
        assert "{{.Name}}" in container["env"][0]["value"]
        assert {one["name"] for one in spec["supportedModelFormats"]} == {"huggingface", "gguf", "triton-repository"}
        ports = [port["name"] for port in container["ports"]]
        if "knative" in name:
            assert (ports, "lifecycle" in container, spec["protocolVersions"]) == (["h2c"], False, ["grpc-v2"])
        else:
            assert (ports, spec["protocolVersions"]) == (["http", "grpc", "metrics"], ["grpc-v2", "v2"])
    here = {one.document["metadata"]["name"]: one.document["spec"] for one in manifests.build("runtimes/namespaced")}
    assert here == runtimes()


@needs_kubectl
@pytest.mark.parametrize("folder", SERVICES)
def test_services_name_runtimes_that_fit_them(folder: str) -> None:
    (service,) = of_kind(folder, "InferenceService")
    predictor = service["spec"]["predictor"]
    model, annotations = predictor["model"], service["metadata"]["annotations"]
    assert service["metadata"]["name"] == folder.rpartition("/")[2]
    runtime = runtimes()[model["runtime"]]
    assert model["modelFormat"]["name"] in {one["name"] for one in runtime["supportedModelFormats"]}
    assert model["protocolVersion"] in runtime["protocolVersions"]
    knative = annotations["serving.kserve.io/deploymentMode"] == "Knative"
    assert knative == ("knative" in model["runtime"])
    (drain,) = [float(one["value"]) for one in model["env"] if one["name"] == "DRAIN_SECONDS"]
    assert 5 + drain + 5 <= (predictor["timeout"] if knative else predictor["terminationGracePeriodSeconds"])
    assert knative or predictor["automountServiceAccountToken"] is False
    if "autoScaling" in predictor:
        assert f'model="{service["metadata"]["name"]}"' in str(predictor["autoScaling"])


@needs_kubectl
@pytest.mark.parametrize("folder", PLAIN)
def test_selectors_find_the_pods_and_ports(folder: str) -> None:
    (deployment,) = of_kind(folder, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    selectors = list(_selectors(folder))
    assert len(selectors) == 6 + 3
    assert all(wanted.items() <= labels for wanted in selectors)
    ports = {port["name"] for port in deployment["spec"]["template"]["spec"]["containers"][0]["ports"]}
    (service,), (network,) = of_kind(folder, "Service"), of_kind(folder, "NetworkPolicy")
    (monitor,) = of_kind("monitoring", "PodMonitor")
    named = {port["targetPort"] for port in service["spec"]["ports"]}
    named |= {port["port"] for rule in network["spec"]["ingress"] for port in rule["ports"]}
    assert named | {one["port"] for one in monitor["spec"]["podMetricsEndpoints"]} == ports
    for scaler, kind in (("scaling/keda", "ScaledObject"), ("scaling/hpa", "HorizontalPodAutoscaler")):
        (one,) = of_kind(scaler, kind)
        target = one["spec"]["scaleTargetRef"]
        assert (target["apiVersion"], target["kind"], target["name"]) == ("apps/v1", "Deployment", deployment["metadata"]["name"])


def _selectors(folder: str) -> Iterator[dict[str, str]]:
    """Whatever should choose the pods: of the Deployment, and of what is applied beside it."""
    kinds = {"Deployment", "PodDisruptionBudget", "PodMonitor", "InferencePool", "Service", "NetworkPolicy"}
    ours = [*manifests.build(folder), *manifests.build("monitoring"), *manifests.build("gateway")]
    for document in (one.document for one in ours):
        if document["kind"] in kinds and not document["metadata"]["name"].endswith("picker"):
            selector = document["spec"].get("selector") or document["spec"]["podSelector"]
            yield selector.get("matchLabels", selector)
    for spec in runtimes().values():
        if spec["protocolVersions"] == ["grpc-v2", "v2"]:
            yield spec["labels"]
    (deployment,) = of_kind(folder, "Deployment")
    yield deployment["spec"]["template"]["spec"]["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"]


# Who is where: labels of a namespace, and of a pod in it. A namespace has its name for a label.
CLIENT = ({"kubernetes.io/metadata.name": "default"}, {})
CLIENT_ELSEWHERE = ({"kubernetes.io/metadata.name": "shop", "octavo/clients": "true"}, {})
PROMETHEUS = ({"kubernetes.io/metadata.name": "monitoring"}, {})
PICKER = ({"kubernetes.io/metadata.name": "default"}, {"app.kubernetes.io/name": "octavo-picker"})
PICKER_ELSEWHERE = ({"kubernetes.io/metadata.name": "shop"}, PICKER[1])
STRANGER = ({"kubernetes.io/metadata.name": "shop"}, {})


@needs_kubectl
@pytest.mark.parametrize(
    ("who", "ports"),
    [
        (CLIENT, {"http", "grpc"}),
        (CLIENT_ELSEWHERE, {"http", "grpc"}),
        (PROMETHEUS, {"metrics"}),
        (PICKER, {"http", "grpc", "metrics"}),
        (PICKER_ELSEWHERE, set()),
        (STRANGER, set()),
    ],
)
def test_the_network_lets_in_who_has_business_here(who: tuple[dict[str, str], dict[str, str]], ports: set[str]) -> None:
    (policy,) = of_kind("plain/cpu", "NetworkPolicy")
    namespace = policy["metadata"]["namespace"]
    open_to = [rule for rule in policy["spec"]["ingress"] if any(_is_peer(peer, namespace, *who) for peer in rule["from"])]
    assert {port["port"] for rule in open_to for port in rule["ports"]} == ports
    assert (policy["spec"]["policyTypes"], policy["spec"]["egress"]) == (["Ingress", "Egress"], [])
    picker = of_kind("gateway", "Deployment")[0]
    assert PICKER[1].items() <= picker["spec"]["template"]["metadata"]["labels"].items()
    assert picker["metadata"]["namespace"] == namespace


def _is_peer(peer: dict[str, Any], own: str, namespace: dict[str, str], pod: dict[str, str]) -> bool:
    """What Kubernetes says a peer of a policy in the namespace ``own`` is; an empty selector is for all."""
    of_namespace, of_pod = (
        peer.get("namespaceSelector", {"matchLabels": {"kubernetes.io/metadata.name": own}}),
        peer.get("podSelector"),
    )
    return _selected(of_namespace, namespace) and (of_pod is None or _selected(of_pod, pod))


def _selected(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    return selector.get("matchLabels", {}).items() <= labels.items()


# What each value has to reach: kinds, or one object of a kind by its name.
REACHES = {
    "GRACE_SECONDS": {"Deployment/octavo", "InferenceService"},
    "DRAIN_SECONDS": {"Deployment/octavo", "InferenceService"},
    "PROMETHEUS_NAMESPACE": {"NetworkPolicy", "PodMonitor", "PrometheusRule", "ConfigMap/octavo-dashboard"},
    "PROMETHEUS": {"ScaledObject", "InferenceService"},
    "QUEUE_SECONDS": {"PrometheusRule"},
    "FIRST_TOKEN_SECONDS": {"PrometheusRule"},
    "NEXT_TOKEN_SECONDS": {"PrometheusRule"},
    "MAX_REPLICAS": {"ScaledObject", "HorizontalPodAutoscaler", "InferenceService"},
    "REQUESTS_PER_REPLICA": {"ScaledObject", "HorizontalPodAutoscaler", "InferenceService"},
    "GATEWAY": {"HTTPRoute"},
}
CLUSTER_WIDE = {"ClusterServingRuntime"}


@needs_kubectl
def test_values_are_set_in_one_place(tmp_path: Path) -> None:
    copy = shutil.copytree(manifests.ROOT, tmp_path / "k8s")
    names = re.findall(r"^([A-Z_]+)=", (copy / "values" / "values.env").read_text(), re.MULTILINE)
    marks = {name: str(7000 + place) for place, name in enumerate(names)}
    (copy / "values" / "values.env").write_text("".join(f"{name}={mark}\n" for name, mark in marks.items()))
    own = copy / "values" / "kustomization.yaml"
    own.write_text(own.read_text().replace("namespace: default\n", "namespace: elsewhere\n"))
    built = [one.document for folder in manifests.targets() for one in manifests.build(folder, copy)]
    reached = {name: {_called(one) for one in built if mark in str(one)} for name, mark in marks.items()}
    assert {name: {kind for kind in kinds if kind in REACHES[name]} for name, kinds in reached.items()} == REACHES
    assert {one["metadata"].get("namespace") for one in built if one["kind"] in CLUSTER_WIDE} == {None}
    placed = {one["metadata"].get("namespace") for one in built if one["kind"] not in CLUSTER_WIDE}
    assert placed == {"elsewhere", marks["PROMETHEUS_NAMESPACE"]}
    text = str(built)
    assert '"default"' not in text
    assert "'namespace': 'default'" not in text


def _called(document: dict[str, Any]) -> str:
    name = f"{document['kind']}/{document['metadata']['name']}"
    return name if any(name in kinds for kinds in REACHES.values()) else document["kind"]


@needs_kubectl
def test_the_autoscaler_asks_for_what_the_adapter_makes() -> None:
    (autoscaler,) = of_kind("scaling/hpa", "HorizontalPodAutoscaler")
    (adapter,) = (one.document for one in manifests.files() if one.where == "scaling/hpa/adapter.yaml")
    asked = {metric["pods"]["metric"]["name"] for metric in autoscaler["spec"]["metrics"]}
    assert asked == {rule["name"]["as"] for rule in adapter["rules"]["custom"]}


@needs_kubectl
def test_the_gateway_s_picker_reads_the_pods_metrics() -> None:
    (pool,), (route,) = of_kind("gateway", "InferencePool"), of_kind("gateway", "HTTPRoute")
    picker, (service,) = of_kind("gateway", "Deployment")[0], of_kind("gateway", "Service")
    container = picker["spec"]["template"]["spec"]["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in _pod("plain/cpu").container["ports"]}
    assert pool["spec"]["targetPorts"] == [{"number": ports["http"]}]
    assert f"--model-server-metrics-port={ports['metrics']}" in container["args"]
    assert f"--pool-name={pool['metadata']['name']}" in container["args"]
    reference = pool["spec"]["endpointPickerRef"]
    assert (reference["name"], reference["port"]["number"]) == (service["metadata"]["name"], service["spec"]["ports"][0]["port"])
    assert route["spec"]["rules"][0]["backendRefs"][0]["name"] == pool["metadata"]["name"]
    assert service["spec"]["selector"] == picker["spec"]["selector"]["matchLabels"]
    assert service["spec"]["ports"][0]["appProtocol"] == "http2", "the picker speaks TLS, which h2c would deny"
    (binding,) = of_kind("gateway", "RoleBinding")
    assert binding["subjects"][0]["namespace"] == picker["metadata"]["namespace"]


@needs_kubectl
def test_tls_and_keys_are_where_the_secrets_are() -> None:
    (service,) = of_kind("plain/secured", "Service")
    assert [port.get("appProtocol") for port in service["spec"]["ports"]] == ["https", None]
    (deployment,) = of_kind("plain/secured", "Deployment")
    volumes = {volume["name"]: volume for volume in deployment["spec"]["template"]["spec"]["volumes"]}
    assert volumes["tls"]["secret"]["secretName"] == "octavo-tls"
    assert volumes["api-keys"]["secret"]["secretName"] == "octavo-api-keys"
    (runtime,) = of_kind(WITH_KEYS, "ClusterServingRuntime")
    assert runtime["metadata"]["name"] not in RUNTIMES
    assert volumes["api-keys"] in runtime["spec"]["volumes"]
    assert "--auth-token-file=/etc/octavo/keys/tokens" in runtime["spec"]["containers"][0]["args"]
