"""Generate the committed stubs: one pass per root of .proto files.

protoc's path is the import path, so each root's stubs land beside the code
that imports them: ours in llmesh/api, a tool's in its own folder.
"""

import shutil
import sys
from importlib import resources
from pathlib import Path

import grpc_tools.protoc

REPO = Path(__file__).resolve().parent.parent
OURS = REPO / "protos"
VENDORED = REPO / "third_party"
SHARED = [OURS, VENDORED, Path(str(resources.files("grpc_tools") / "_proto"))]


def generate(root: Path, out: Path, *, package: str = ".", services: bool = True) -> None:
    """Write the stubs of every .proto under root, or under a package's folder in it, to out; the old ones go first."""
    files = sorted(str(path.relative_to(root)) for path in root.joinpath(package).rglob("*.proto"))
    if not files:
        return
    for stub in {*out.joinpath(files[0].split("/")[0]).rglob("*_pb2*.py*")}:
        stub.unlink()
    plugins = [
        f"--plugin=protoc-gen-{name}={Path(sys.executable).parent}/protoc-gen-{name}" for name in ("mypy", "mypy_grpc")
    ]
    outputs = [f"--python_out={out}", f"--mypy_out=quiet:{out}"]
    if services:
        outputs += [f"--grpc_python_out={out}", f"--mypy_grpc_out=quiet:{out}"]
    includes = [f"-I{path}" for path in dict.fromkeys([root, *SHARED])]
    if grpc_tools.protoc.main(["protoc", *includes, *plugins, *outputs, *files]) != 0:
        sys.exit(f"protoc failed for {root.relative_to(REPO)}")
    if services:
        remove_empty_services(out, files)


def remove_empty_services(out: Path, files: list[str]) -> None:
    """Remove the service stubs of files that define no service."""
    for name in files:
        stem = out / name.removesuffix(".proto")
        stub = Path(f"{stem}_pb2_grpc.py")
        if "class " not in stub.read_text():
            stub.unlink()
            Path(f"{stem}_pb2_grpc.pyi").unlink(missing_ok=True)


def main() -> None:
    """Generate everything."""
    generate(OURS, REPO)
    # Those of google.rpc are in a package of their own, googleapis-common-protos.
    generate(VENDORED, REPO, package="buf", services=False)
    for protos in sorted([*REPO.glob("tools/*/*/protos"), *REPO.glob("tests/tools/*/protos")]):
        generate(protos, protos.parent)
    shutil.rmtree(REPO / "__pycache__", ignore_errors=True)


if __name__ == "__main__":
    main()
