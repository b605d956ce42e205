"""Our messages beside packages that define the same names on protobuf's default pool, each pair in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

BACKEND = Path(__file__).parents[3] / "backend"
TRITON = "import tritonclient.grpc, tritonclient.grpc.aio; from tritonclient.grpc import service_pb2 as other"
KSERVE = "from kserve.protocol.grpc import grpc_predict_v2_pb2 as other"
OURS = "from octavo.wire import pb"
USE = """
theirs = other.ModelInferRequest(model_name='m', raw_input_contents=[b'x'])
assert pb.ModelInferRequest.FromString(theirs.SerializeToString()).model_name == 'm'
"""


def run(source: str) -> subprocess.CompletedProcess[str]:
    """``source`` in a fresh interpreter that can import octavo."""
    program = f"import sys; sys.path.insert(0, {str(BACKEND)!r})\n{source}"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("imports", [(OURS, TRITON), (TRITON, OURS), (OURS, KSERVE), (KSERVE, OURS)])
def test_both_import_in_one_process(imports: tuple[str, str]) -> None:
    result = run("\n".join(imports) + USE)
    assert result.returncode == 0, result.stderr


def test_a_kserve_load_arrives_in_the_field_of_the_repository() -> None:
    result = run(
        f"{KSERVE}\n{OURS}\n"
        "data = other.RepositoryModelLoadRequest(model_name='llama').SerializeToString()\n"
        "request = pb.RepositoryModelLoadRequest.FromString(data)\n"
        "assert (request.repository_name, request.model_name) == ('llama', ''), request"
    )
    assert result.returncode == 0, result.stderr


def test_the_wire_package_is_light() -> None:
    result = run("import octavo.wire, sys; print([m for m in ('torch', 'transformers', 'grpc', 'numpy') if m in sys.modules])")
    assert result.stdout.strip() == "[]", result.stdout + result.stderr
