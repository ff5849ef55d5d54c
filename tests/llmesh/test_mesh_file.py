"""A mesh file says what a mesh consists of, or says which line is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmesh.document import DocumentError, parse_document
from llmesh.mesh_file import MeshFile, read_mesh_file

REPO = Path(__file__).parents[2]


def test_an_empty_file_is_a_mesh_with_nothing_in_it() -> None:
    mesh = parse_document(MeshFile, "", file="mesh.yaml")
    assert (mesh.host, mesh.port, mesh.processes, mesh.endpoints) == ("127.0.0.1", 8700, (), ())


@pytest.mark.parametrize(
    ("listen", "host"), [("localhost:1", "127.0.0.1"), ("'[::1]:1'", "::1"), ("127.0.0.2:1", "127.0.0.2")]
)
def test_any_address_of_this_machine_alone_can_be_listened_on(listen: str, host: str) -> None:
    mesh = parse_document(MeshFile, f"listen: {listen}", file="mesh.yaml")
    assert (mesh.host, mesh.port) == (host, 1)


def test_an_endpoint_on_localhost_is_called_by_its_ip_address() -> None:
    mesh = parse_document(MeshFile, "endpoints: [{address: 'localhost:8743'}]", file="mesh.yaml")
    assert mesh.endpoints[0].address == "127.0.0.1:8743"


def test_paths_are_taken_from_the_files_own_folder(tmp_path: Path) -> None:
    path = tmp_path / "mesh.yaml"
    path.write_text("policies: rules\nprocesses: [{name: a, folder: tools/a_b, command: [node, main.js]}]")
    mesh = read_mesh_file(path)
    assert mesh.policies == tmp_path / "rules"
    process = mesh.processes[0]
    assert (process.folder, process.module, process.command) == (tmp_path / "tools/a_b", "a_b", ("node", "main.js"))


def test_the_file_we_ship_starts_tools_that_are_there() -> None:
    for process in read_mesh_file(REPO / "mesh.yaml").processes:
        assert (process.folder / process.module / "__main__.py").is_file(), process.name


def test_with_a_certificate_any_address_can_be_listened_on(
    tmp_path: Path,
) -> None:
    path = tmp_path / "mesh.yaml"
    path.write_text(
        "listen: 0.0.0.0:8700\ntls: {certificate: a.crt, key: /k/a.key}\n"
        "tool_tls: {certificate: b.crt, key: b.key, authority: c.crt}\n"
        "endpoints: [{address: '10.0.0.1:1', tls_name: a.example}]"
    )
    mesh = read_mesh_file(path)
    assert mesh.host == "0.0.0.0"  # noqa: S104 the case in point
    assert mesh.tls
    assert (mesh.tls.certificate, mesh.tls.key) == (tmp_path / "a.crt", Path("/k/a.key"))
    assert mesh.tool_tls
    assert mesh.tool_tls.authority == tmp_path / "c.crt"
    assert mesh.endpoints[0].tls_name == "a.example"


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("listen: 127.0.0.1:8700\nlisten: 127.0.0.1:8701", 2, "`listen` is given twice"),
        ("# x\nlisen: 127.0.0.1:8700", 2, "did you mean `listen`"),
        ("endpoints:\n- address: 10.0.0.1:1\n  sevices: []", 3, "did you mean `services`"),
        ("endpoints:\n- address: a", 2, "write host:port"),
        ("endpoints:\n- address: 10.0.0.1:0", 2, "names no port"),
        ("endpoints:\n- address: 10.0.0.1:70000", 2, "write host:port"),
        ("endpoints:\n- address: unix:relative.sock", 2, "unix:/absolute"),
        ("endpoints:\n- address: dns:///a:1", 2, "write host:port"),
        ("endpoints: [{address: '10.0.0.1:1'}, {address: '10.0.0.1:1'}]", 1, "endpoint `10.0.0.1:1` comes twice"),
        (
            "endpoints:\n- address: unix:/a\n  services:\n  - {service: a.B, domain: d, owner_team: t, effects: {a: }}",
            4,
            "effects.a",
        ),
        ("processes:\n- {name: A b, folder: x}", 2, "processes.0.name"),
        ("processes:\n- {name: a, folder: x}\n- {name: a, folder: y}", 1, "process `a` comes twice"),
        ("listen: 8700", 1, "listen"),
        ("# x\nlisten: 0.0.0.0:8700", 2, "`listen`: `0.0.0.0` is reachable from other machines"),
        ("tls: {certificate: a}\nlisten: 0.0.0.0:8700", 1, "`tls.key`"),
        ("endpoints:\n- {address: 'unix:/a', tls_name: a.example}", 2, "`unix:/a` is a socket of this machine"),
        ("endpoints:\n- {address: '10.0.0.1:1', tls_name: 'A b'}", 2, "tls_name"),
        ("endpoints: [{address: '10.0.0.1:1', tls_name: a.example}]", 1, "say under `tool_tls` what the mesh shows it"),
        ("listen: mesh.internal:8700", 1, "`listen`: `mesh.internal` is not an IP address"),
        ("endpoints:\n- address: tools.internal:1", 2, "`tools.internal` is not an IP address"),
        ("endpoints: [{address: 'localhost:1'}, {address: '127.0.0.1:1'}]", 1, "endpoint `127.0.0.1:1` comes twice"),
        ("[", 1, "not YAML"),
        ("- a", 1, "valid dictionary"),
    ],
)
def test_a_wrong_file_is_refused_with_the_line_and_the_key(text: str, line: int, says: str) -> None:
    with pytest.raises(DocumentError, match=rf"mesh\.yaml:{line}: ") as caught:
        parse_document(MeshFile, text, file="mesh.yaml")
    assert says in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match=r"nowhere\.yaml:1: cannot be read"):
        read_mesh_file(tmp_path / "nowhere.yaml")
