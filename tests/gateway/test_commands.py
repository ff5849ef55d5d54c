"""`llmesh contract check`, on tools that run and on folders of .proto files."""

from __future__ import annotations

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory

from typer.testing import CliRunner, Result

from gateway.commands import contract as app
from tests.gateway.discovery.world import OWNERSHIP, contract, honest, serving

SOURCE = """
syntax = "proto3";
package acme.support.v1;
import "llmesh/api/options/v1/options.proto";
message GetRequest {}
message GetResponse {}
service Tickets {
  option (llmesh.api.options.v1.tool) = {domain: "support"};
  rpc Get(GetRequest) returns (GetResponse);
}
"""


def check(target: str, folder: Path) -> Result:
    ownership = folder / "ownership.yaml"
    ownership.write_text(OWNERSHIP)
    return CliRunner().invoke(app, [target, "--ownership", str(ownership)])


async def test_a_tool_that_runs_is_told_what_it_may_not_have_meant() -> None:
    with TemporaryDirectory(prefix="llmesh-") as name:
        address = f"unix:{name}/tool.sock"
        async with serving(address, honest(contract())):
            result = await asyncio.to_thread(check, address, Path(name))
    assert (result.exit_code, "FAIL" in result.output) == (0, False)
    assert "note: no effect is stated for `Get`, so that it counts as destructive" in result.output


def test_a_folder_is_told_the_same(tmp_path: Path) -> None:
    protos = tmp_path / "protos"
    protos.mkdir()
    (protos / "tickets.proto").write_text(SOURCE)
    result = check(str(protos), tmp_path)
    assert (result.exit_code, "FAIL" in result.output) == (0, False)
    assert "note: no effect is stated for `Get`" in result.output


def test_what_would_be_refused_is_an_exit_code(tmp_path: Path) -> None:
    protos = tmp_path / "protos"
    protos.mkdir()
    (protos / "tickets.proto").write_text(SOURCE.replace("acme.support.v1;", "acme.nobody.v1;"))
    result = check(str(protos), tmp_path)
    assert result.exit_code == 1
    assert "NO_OWNER: no domain owns the package `acme.nobody.v1`" in result.output
