"""Contracts as source."""

from __future__ import annotations

from pathlib import Path

import grpc_tools.protoc  # pyright: ignore[reportMissingTypeStubs]

from tests.llmesh.cli.command import Command

REPO = Path(__file__).parents[3]


def test_what_is_pulled_compiles(signed_in: Command, tmp_path: Path) -> None:
    answer = signed_in("contract", "pull", "acme.testing.v1", "-o", str(tmp_path), "--json")
    names = [
        "acme/testing/v1/echo.proto",
        "buf/validate/validate.proto",
        "llmesh/api/options/v1/options.proto",
    ]
    assert answer.json["files"] == [str(tmp_path / name) for name in names]
    built_in = Path(grpc_tools.__file__).parent / "_proto"
    out = tmp_path / "set.binpb"
    arguments = ["protoc", f"-I{tmp_path}", f"-I{built_in}", f"--descriptor_set_out={out}", *names]
    assert grpc_tools.protoc.main(arguments) == 0  # pyright: ignore[reportUnknownMemberType]


def test_one_tool_may_be_pulled_by_name(signed_in: Command, tmp_path: Path) -> None:
    assert signed_in("contract", "pull", "acme.testing.v1.Echo", "-o", str(tmp_path)).code == 0
    assert "service Echo {" in (tmp_path / "acme/testing/v1/echo.proto").read_text()


def test_an_unknown_package_says_which_there_are(signed_in: Command, tmp_path: Path) -> None:
    answer = signed_in("contract", "pull", "acme.testing", "-o", str(tmp_path))
    assert answer.code == 1
    assert "packages on the mesh: acme.escape.v1, acme.testing.v1" in answer.err
    assert list(tmp_path.iterdir()) == []


def test_a_file_never_lands_outside_the_folder(signed_in: Command, tmp_path: Path) -> None:
    answer = signed_in("contract", "pull", "acme.escape.v1", "-o", str(tmp_path / "out"))
    assert answer.code == 1
    assert "`../outside.proto`: that is not written" in answer.err
    assert list(tmp_path.rglob("*.proto")) == []
