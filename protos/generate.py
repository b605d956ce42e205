"""Generate ``octavo/wire/*_pb2.py`` and their type stubs from the ``.proto`` files beside this script.

The modules that protoc writes register their messages on protobuf's default pool and import one another as top-level
modules. Both are rewritten: messages go on ``octavo.wire.POOL`` and imports are relative to the package.

    python protos/generate.py            write the files
    python protos/generate.py --check    write nothing; exit with 1 if the committed files differ
"""

import argparse
import difflib
import sys
import tempfile
from pathlib import Path

PROTOS = Path(__file__).resolve().parent
WIRE = PROTOS.parent / "backend" / "octavo" / "wire"
NAMES = ("model_config", "grpc_service")


def main() -> int:
    """Write or check; the exit status."""
    parser = argparse.ArgumentParser(description="Generate octavo.wire from protos/.")
    parser.add_argument("--check", action="store_true", help="write nothing and fail if the committed files differ")
    check = parser.parse_args().check
    generated = generate()
    if check:
        return report_drift(generated)
    for name, text in generated.items():
        (WIRE / name).write_text(text)
    return 0


def generate() -> dict[str, str]:
    """File name in ``octavo/wire`` -> what should stand in it."""
    from grpc_tools import protoc  # type: ignore[import-untyped]

    with tempfile.TemporaryDirectory() as folder:
        files = [f"{name}.proto" for name in NAMES]
        status = protoc.main(["protoc", f"-I{PROTOS}", f"--python_out={folder}", f"--pyi_out={folder}", *files])
        if status != 0:
            raise SystemExit(f"protoc failed with status {status}.")
        output = {path.name: path.read_text() for path in sorted(Path(folder).iterdir())}
    return {name: rewrite_stub(text) if name.endswith(".pyi") else rewrite_module(name, text) for name, text in output.items()}


def rewrite_module(file_name: str, text: str) -> str:
    """A module of protoc's, on our pool and in our package."""
    if "# Protobuf Python Version: 6." not in text:
        raise SystemExit("The compiler must be of protobuf 6, so that its code runs with protobuf 6 and 7: use grpcio-tools 1.81.")
    module = file_name.removesuffix(".py")
    text = replace_once(text, "from google.protobuf import descriptor_pool as _descriptor_pool", "from ._pool import POOL as _POOL")
    text = replace_once(text, "_descriptor_pool.Default().AddSerializedFile", "_POOL.AddSerializedFile")
    text = replace_once(text, f"(DESCRIPTOR, '{module}', _globals)", f"(DESCRIPTOR, 'octavo.wire.{module}', _globals)")
    return relative_imports(text)


def rewrite_stub(text: str) -> str:
    """A type stub of protoc's, in our package; ``kwargs`` stands there for a field whose name is a Python keyword."""
    return relative_imports(text.replace("**kwargs)", "**kwargs: object)"))


def relative_imports(text: str) -> str:
    """``import x_pb2 as y`` -> ``from . import x_pb2 as y`` for the modules of this contract."""
    for name in NAMES:
        text = text.replace(f"\nimport {name}_pb2 as ", f"\nfrom . import {name}_pb2 as ")
        if text.startswith(f"import {name}_pb2 as "):
            text = f"from . {text}"
    return text


def replace_once(text: str, old: str, new: str) -> str:
    """``text`` with its only ``old`` replaced; anything but one occurrence means that protoc's output has changed."""
    if text.count(old) != 1:
        raise SystemExit(f"protoc's output has changed: expected {old!r} once, found it {text.count(old)} times.")
    return text.replace(old, new)


def report_drift(generated: dict[str, str]) -> int:
    """Print how the committed files differ from ``generated``; 1 if they do."""
    drift = 0
    for name, text in generated.items():
        path = WIRE / name
        committed = path.read_text() if path.exists() else ""
        if committed != text:
            drift = 1
            old, new = committed.splitlines(), text.splitlines()
            for line in difflib.unified_diff(old, new, f"committed/{name}", f"generated/{name}", lineterm="", n=1):
                print(line[:160])
    if drift:
        print("octavo/wire differs from protos/: run `python protos/generate.py`.", file=sys.stderr)
    return drift


if __name__ == "__main__":
    sys.exit(main())
