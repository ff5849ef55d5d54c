"""`llmesh policy` beside a mesh that runs: it asks the mesh for contracts, and replays what the mesh has recorded."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from llmesh._client import open_channel
from llmesh.identity import DevCaller
from tests.e2e.mesh import ECHO, OWNER, READER, RunningMesh, running_mesh
from tests.e2e.recorded import AUDITOR, Calls, recorded
from tests.eventually import eventually

WITHIN_S = 60.0
READ, ERASE = f"{ECHO}/Unary", f"{ECHO}/Erase"


@pytest.fixture(scope="module")
def mesh() -> Iterator[RunningMesh]:
    with running_mesh() as running:
        running.start_echo()
        running.wait_ready(ECHO)
        yield running


def llmesh(mesh: RunningMesh, *arguments: str, caller: DevCaller = AUDITOR) -> subprocess.CompletedProcess[str]:
    told = {"LLMESH_HOME": str(mesh.home.path), "LLMESH_ADDRESS": mesh.address, "LLMESH_TOKEN": mesh.token(caller)}
    argv = (sys.executable, "-m", "llmesh.cli", *arguments)
    return subprocess.run(argv, env=os.environ | told, capture_output=True, text=True, check=False)


def with_rules(policies: Path, folder: Path, *rules: dict[str, object]) -> Path:
    """A copy of the mesh's policies with these rules as well."""
    newer = Path(shutil.copytree(policies, folder / "newer"))
    file = newer / "mesh.yaml"
    written = yaml.safe_load(file.read_text())
    written["rules"] += [{"effect": "forbid", "reason": "no longer", **rule} for rule in rules]
    file.write_text(yaml.safe_dump(written))
    return newer


async def test_recorded_calls_are_replayed_and_counted_by_caller_and_method(mesh: RunningMesh, tmp_path: Path) -> None:
    async with open_channel(mesh.address) as channel:
        calls = Calls(mesh, channel)
        for _ in range(3):
            await calls.read()
        await calls.write()

        async def all_there() -> None:
            assert calls.expected <= (await recorded(mesh, channel)).keys()

        await eventually(all_there, within_s=WITHIN_S)
    policies, records = mesh.folder / "policies", tmp_path / "records.jsonl"
    records.write_text((await asyncio.to_thread(llmesh, mesh, "audit", "--tool", ECHO, "--json")).stdout)
    newer = with_rules(
        policies,
        tmp_path,
        {"id": "no-more", "when": f"caller.subject == '{READER.name}'", "applies": {"services": [ECHO]}},
        {
            "id": "from-there",
            "when": "context.address == '10.0.0.1'",
            "applies": {"services": [ECHO], "methods": ["Erase"]},
        },
    )

    def diff(old: Path, new: Path) -> subprocess.CompletedProcess[str]:
        return llmesh(mesh, "policy", "diff", str(old), str(new), "--records", str(records), "--json")

    told = await asyncio.to_thread(diff, policies, newer)
    [change] = json.loads(told.stdout)["changes"]
    assert (told.returncode, change["calls"], change["method"]) == (1, 3, READ)
    assert change["caller"]["subject"] == READER.name
    assert (change["before"]["rule"], change["after"]["rule"]) == ("mesh/reads", "mesh/no-more")
    # The call that erased, whose record has no address.
    assert json.loads(told.stdout)["unknown"] == {"a rule asks how the call came": 1}
    same = await asyncio.to_thread(diff, policies, policies)
    assert (same.returncode, json.loads(same.stdout)) == (0, {"changes": [], "same": 4, "unknown": {}})


async def test_rules_are_shown_and_explained_for_contracts_that_the_mesh_has(mesh: RunningMesh) -> None:
    policies = ("--policies", str(mesh.folder / "policies"))
    shown = await asyncio.to_thread(llmesh, mesh, "policy", "show", ERASE, *policies, "--json")
    rules = [rule["rule"] for rule in json.loads(shown.stdout)["rules"]]
    assert rules == ["domain/testing/no-outsiders", "mesh/destructive"]

    def explain(caller: DevCaller) -> tuple[int, str]:
        told = llmesh(mesh, "policy", "explain", ERASE, "--caller", mesh.token(caller), *policies, "--json")
        assert told.stdout, (told.returncode, told.stderr)
        return told.returncode, json.loads(told.stdout)["outcome"]

    assert await asyncio.to_thread(explain, OWNER) == (0, "allow")
    assert await asyncio.to_thread(explain, READER) == (1, "deny")
    unknown = await asyncio.to_thread(llmesh, mesh, "policy", "show", f"{ECHO}/Nothing", *policies)
    assert (unknown.returncode, "nothing is known of" in unknown.stderr) == (1, True)
