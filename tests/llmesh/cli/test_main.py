"""The command line as a whole: help, usage, what goes wrong, and commands of other packages."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest
import typer

from llmesh.cli import app as app_module
from llmesh.cli import join, tools
from tests.llmesh.cli.command import Command

theirs = typer.Typer(help="Their commands.")


@theirs.command("check")
def check() -> None:
    """Check something."""
    typer.echo("checked")


@theirs.command("test")
def test() -> None:
    """Try something."""
    typer.echo("tried")


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two groups of a package that is installed, and one of a package that cannot be loaded."""
    points = [EntryPoint(name, f"{__name__}:theirs", join.ENTRY_POINTS) for name in ("ledger", "contract")]
    points.append(EntryPoint("broken", "no.such.module:commands", join.ENTRY_POINTS))

    def entry_points(*, group: str) -> list[EntryPoint]:
        return points if group == join.ENTRY_POINTS else []

    monkeypatch.setattr(join, "entry_points", entry_points)
    for group in (app_module.app, app_module.contract.app):
        monkeypatch.setattr(group, "registered_commands", list(group.registered_commands))
        monkeypatch.setattr(group, "registered_groups", list(group.registered_groups))


def test_help_names_every_command(command: Command) -> None:
    answer = command("--help")
    assert answer.code == 0
    for name in ("up", "down", "status", "login", "token", "tools", "call", "contract"):
        assert f" {name} " in answer.out


def test_the_version_is_told(command: Command) -> None:
    assert command("--version").out.strip().replace(".", "").isdigit()


@pytest.mark.parametrize("args", [("nope",), ("call",), ("token", "--nope"), ("tools", "nope")])
def test_wrong_usage_exits_with_2(command: Command, args: tuple[str, ...]) -> None:
    answer = command(*args)
    assert (answer.code, answer.out) == (2, "")
    assert "Usage:" in answer.err


def test_what_nobody_expected_is_a_sentence_still(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_path: object) -> None:
        raise RuntimeError("odd")

    monkeypatch.setattr("llmesh.home.Home.find", broken)
    answer = command("token")
    assert answer.code == 1
    assert answer.err.startswith("error: unexpected: RuntimeError: odd\n")
    assert "LLMESH_DEBUG=1" in answer.err


def test_debugging_shows_where_it_happened(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_path: object) -> None:
        raise RuntimeError("odd")

    monkeypatch.setattr("llmesh.home.Home.find", broken)
    monkeypatch.setenv("LLMESH_DEBUG", "1")
    with pytest.raises(RuntimeError, match="odd"):
        command("token")


def test_completion_is_offered(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_LLMESH_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "llmesh to")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert command().out.split() == ["token", "tools"]


@pytest.mark.usefixtures("joined")
def test_a_package_brings_a_group_of_its_own(command: Command) -> None:
    assert command("ledger", "test").out == "tried\n"
    assert " ledger " in command("--help").out


@pytest.mark.usefixtures("joined")
def test_a_package_adds_to_a_group_of_ours(command: Command) -> None:
    assert command("contract", "check").out == "checked\n"
    assert " pull " in command("contract", "--help").out


@pytest.mark.usefixtures("joined")
def test_a_package_that_cannot_be_loaded_harms_only_its_own_commands(command: Command) -> None:
    assert command("--help").code == 0
    answer = command("broken")
    assert answer.code == 1
    assert "`llmesh broken` cannot be loaded" in answer.err


def test_other_packages_are_not_loaded_for_our_commands(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(**_: str) -> list[EntryPoint]:
        pytest.fail("asked what is installed")

    monkeypatch.setattr(join, "entry_points", asked)
    assert command("token").code == 1
    assert tools.app.registered_commands
