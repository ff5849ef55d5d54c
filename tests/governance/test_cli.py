"""`llmesh policy`, on folders of policy files as a domain's own CI has them."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from governance.contract.facts import tools_in
from governance.ownership import parse_ownership
from llmesh.cli.protoc import compile_protos
from tests.governance.rules import POLICIES
from tests.llmesh.cli.command import Command

REPO = Path(__file__).parents[2]
PROTOS = str(REPO / "tools/support/tickets/protos")
GET, DELETE = "acme.support.v1.Tickets/GetTicket", "acme.support.v1.Tickets/DeleteTicket"
SAM = {"issuer": "dev", "subject": "sam", "roles": ["editor"], "domain": "sales"}


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    """The shipped policy, to be edited."""
    return Path(shutil.copytree(POLICIES, tmp_path / "policies"))


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    def nothing(_: str) -> None:
        pass

    typed: Callable[[str], None] = nothing
    return Command(capsys, typed)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def caller_file(folder: Path, **facts: object) -> str:
    path = folder / "caller.yaml"
    path.write_text(json.dumps({**SAM, **facts}))
    return str(path)


def test_the_shipped_policy_has_nothing_to_mend(policies: Path, command: Command) -> None:
    checked, tested = command("policy", "check", str(policies)), command("policy", "test", str(policies))

    assert (checked.code, checked.out) == (0, "4 rules, 14 tests: 0 to mend\n")
    assert (tested.code, tested.out) == (0, "14 passed, 0 failed\n")


def test_what_cannot_be_read_is_told_with_its_place(policies: Path, command: Command) -> None:
    edit(policies / "mesh.yaml", "when: caller.domain == tool.domain && 'owner'", "when: caller.team == 'a' && 'owner'")

    result = command("policy", "check", str(policies))

    assert result.code == 1
    assert "mesh.yaml:27: rule `destructive`: column 1:7: undefined field 'team'" in result.err


def test_a_rule_that_says_something_else_fails_its_tests(policies: Path, command: Command) -> None:
    edit(policies / "mesh.yaml", "|| 'owner' in caller.roles)", ")")

    told = command("policy", "test", str(policies))
    checked = command("policy", "check", str(policies), "--json")

    assert told.code == checked.code == 1
    assert "mesh/writes, test 2: expected allow, but it is deny as no rule permits" in told.out
    assert told.out.endswith("13 passed, 1 failed\n")
    assert [(each["rule"], each["kind"]) for each in checked.json["findings"]] == [("mesh/writes", "failing")]


def test_a_folder_without_the_meshs_rules_is_no_policy(tmp_path: Path, command: Command) -> None:
    result = command("policy", "check", str(tmp_path))

    assert (result.code, "mesh.yaml` is missing" in result.err) == (1, True)


def test_a_test_may_name_a_method_whose_contract_is_given(policies: Path, command: Command) -> None:
    named = f"{{call: {DELETE}, expect: deny}}\n      - {{caller: {{subject"
    edit(policies / "mesh.yaml", "{caller: {subject", named)

    assert "nothing is known of `acme.support.v1.Tickets/DeleteTicket`" in command("policy", "test", str(policies)).out
    assert command("policy", "test", str(policies), "--protos", PROTOS).code == 0


def test_show_says_what_is_left_for_a_method_and_where_it_is_enforced(policies: Path, command: Command) -> None:
    edit(policies / "domains/support.yaml", "effect: forbid", "effect: forbid\n    mode: shadow")

    result = command("policy", "show", GET, "--policies", str(policies), "--protos", PROTOS, "--json")

    assert result.code == 0
    assert [(each["rule"], each["left"], each["enforced"]) for each in result.json["rules"]] == [
        (
            "domain/support/personal-data",
            "caller.domain != 'support' && !('pii' in caller.clearances)",
            "nowhere; told in decision records",
        ),
        ("mesh/reads", "always", "Envoy, in the method's permit"),
    ]


@pytest.mark.parametrize(
    ("facts", "code", "outcome"),
    [
        pytest.param({}, 1, "deny by domain/support/personal-data", id="denied"),
        pytest.param({"clearances": ["pii"]}, 0, "allow by mesh/reads", id="allowed"),
    ],
)
def test_explain_says_what_every_rule_says(
    *, facts: dict[str, object], code: int, outcome: str, policies: Path, command: Command
) -> None:
    who = caller_file(policies, **facts)

    result = command("policy", "explain", GET, "--caller", who, "--policies", str(policies), "--protos", PROTOS)

    assert result.code == code
    assert [line.split()[0] for line in result.out.splitlines()[1:5]] == [
        "domain/support/personal-data",
        "mesh/destructive",
        "mesh/reads",
        "mesh/writes",
    ]
    assert result.out.splitlines()[-1].startswith(outcome)


def test_explain_takes_a_token_as_the_issuers_bindings_do(policies: Path, command: Command) -> None:
    claims = {"iss": "https://dev.llmesh.local", "sub": "ada", "roles": ["owner"], "domain": "support"}
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")

    def explained(token: str) -> tuple[int, str, str]:
        arguments = ("--policies", str(policies), "--protos", PROTOS, "--json")
        result = command("policy", "explain", DELETE, "--caller", token, *arguments)
        return result.code, result.json["rule"] if result.code == 0 else "", result.err

    for signature in ("c2ln", "yamlc2ln", "jsonc2ln"):
        assert explained(f"e30.{payload}.{signature}")[:2] == (0, "mesh/destructive")
    stranger = base64.urlsafe_b64encode(b'{"iss": "https://evil.example", "sub": "ada"}').decode().rstrip("=")
    assert "no issuer of" in explained(f"e30.{stranger}.c2ln")[2]
    assert "cannot be read" in explained("a.b.c")[2]


def recorded(method: str, outcome: str, **more: object) -> str:
    service, _, name = method.partition("/")
    return json.dumps({"caller": SAM, "service": service, "method": name, "outcome": outcome, **more})


def test_diff_counts_the_recorded_calls_that_would_end_otherwise(
    policies: Path, tmp_path: Path, command: Command
) -> None:
    newer = Path(shutil.copytree(policies, tmp_path / "newer"))
    edit(newer / "domains/support.yaml", "caller.domain != 'support' && ", "")
    edit(newer / "domains/support.yaml", "!('pii' in caller.clearances)", "!('editor' in caller.roles)")
    records = tmp_path / "records.jsonl"
    lines = [
        *[recorded(GET, "OUTCOME_DENIED", phase="PHASE_END", latency="0.1s")] * 2,
        recorded(GET, "OUTCOME_DENIED", counted="40"),
        recorded(GET, "OUTCOME_ALLOWED"),
        recorded(DELETE, "OUTCOME_DENIED"),
        recorded(DELETE, "OUTCOME_DENIED", phase="PHASE_START"),
        recorded("acme.gone.v1.Tool/Get", "OUTCOME_ALLOWED"),
        recorded(GET, "OUTCOME_BLOCKED"),
    ]
    records.write_text("\n".join(lines))
    arguments = ("--records", str(records), "--protos", PROTOS)

    changed = command("policy", "diff", str(policies), str(newer), *arguments, "--json")
    same = command("policy", "diff", str(policies), str(policies), *arguments)

    assert (changed.code, same.code) == (1, 0)
    [change] = changed.json["changes"]
    assert (change["calls"], change["method"], change["caller"]["subject"]) == (42, GET, "sam")
    assert change["before"] == {"outcome": "deny", "rule": "domain/support/personal-data"}
    assert change["after"] == {"outcome": "allow", "rule": "mesh/reads"}
    unknown = {"OLD does not say what was recorded": 1, "nothing is known of the method now": 1}
    assert (changed.json["same"], changed.json["unknown"]) == (1, unknown)
    assert same.out.startswith("0 calls would change, 43 would not\n")


def test_a_file_without_records_is_told(policies: Path, tmp_path: Path, command: Command) -> None:
    (tmp_path / "records").write_text("[1]\n")

    arguments = ("--records", str(tmp_path / "records"), "--protos", PROTOS)
    result = command("policy", "diff", str(policies), str(policies), *arguments)

    assert (result.code, "holds no decision records" in result.err) == (1, True)


def test_a_contract_is_to_rules_what_the_gateway_makes_of_it() -> None:
    facts = tools_in(compile_protos(Path(PROTOS)), parse_ownership((POLICIES / "ownership.yaml").read_text()))[GET]

    assert (facts.service, facts.method, facts.domain) == ("acme.support.v1.Tickets", "GetTicket", "support")
    assert (facts.effect, "pii" in facts.data_classes, facts.hidden) == (1, True, False)
