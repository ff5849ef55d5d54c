"""Every block of the README and the documentation is run, by a reader who types what it says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from governance.bundle import parse_bundle
from governance.issuers import parse_issuers
from governance.ownership import parse_ownership
from governance.policy_file import CallerEntry
from llmesh.document import parse_document
from llmesh.mesh_file import read_mesh_file
from tests.docs.pages import PICTURES, Block, blocks, commands
from tests.docs.reader import REPO, Checkout, reading, running_checkout

# In the order of reading: the last page ends the mesh.
PAGES = [
    *("README.md", "docs/concepts.md", "docs/client.md", "docs/fanout.md", "docs/tool.md", "docs/delegation.md"),
    "docs/schemas.md",
    *("docs/configuration.md", "docs/metrics.md", "docs/benchmarks.md", "docs/enforced.md", "docs/threats.md"),
    *("docs/issuers.md", "docs/rules.md", "docs/records.md", "docs/models.md", "docs/platform.md"),
]
# For a program that is not here; tests/docs/test_alerts.py reads what of them is ours.
PROMETHEUS = ("prometheus.yml", "alerts.yml")
# Why a block is not run here.
REASONS = {
    "installs": "makes the environment that this very test runs in; `make check` runs the targets themselves",
}
ALL = [(page, block) for page in PAGES for block in blocks(REPO / page)]


def named(language: str) -> list[object]:
    """The blocks of a language, each to be one test."""
    return [pytest.param(block, id=f"{page}:{block.line}") for page, block in ALL if block.language == language]


@pytest.fixture(scope="module")
def checkout() -> Iterator[Checkout]:
    with running_checkout() as running:
        yield running


@pytest.mark.parametrize("page", PAGES)
async def test_page_does_what_it_says(page: str, checkout: Checkout) -> None:
    async with reading(checkout) as reader:
        for block in blocks(REPO / page):
            if block.language not in PICTURES and not block.not_run:
                try:
                    await reader.follow(block)
                except AssertionError as err:
                    pytest.fail(f"{page}:{block.line}: {err}", pytrace=False)


def test_every_page_is_read() -> None:
    written = {str(path.relative_to(REPO)) for path in [REPO / "README.md", *(REPO / "docs").glob("*.md")]}

    assert written == set(PAGES)


@pytest.mark.parametrize(("page", "block"), [pytest.param(*each, id=f"{each[0]}:{each[1].line}") for each in ALL])
def test_every_block_is_run_or_says_why_not(page: str, block: Block) -> None:
    if block.not_run:
        assert block.not_run in REASONS
    elif block.language == "console":
        assert commands(block), "a console without a command"
    elif block.language not in PICTURES:
        assert block.path, "the line above a file's block is its path in backticks, and a colon"
        assert block.language == "yaml" or _is_used(page, block), f"no command of the page uses `{block.path}`"


def _is_used(page: str, block: Block) -> bool:
    typed = [
        command.typed for other in blocks(REPO / page) if other.language == "console" for command in commands(other)
    ]
    return any(block.path in line or Path(block.path).name in line for line in typed)


@pytest.mark.parametrize("block", named("yaml"))
def test_yaml_is_what_its_loader_takes(block: Block, tmp_path: Path) -> None:
    if block.path in PROMETHEUS:
        assert yaml.safe_load(block.body)
    elif block.path == "mesh.yaml":
        path = tmp_path / block.path
        path.write_text(block.body)
        read_mesh_file(path)
    elif block.path.endswith("ownership.yaml"):
        parse_ownership(block.body)
    elif "issuers" in block.path:
        parse_issuers(block.body)
    elif block.path == "sales.yaml":
        parse_document(CallerEntry, block.body, file=block.path)
    elif "/domains/" in block.path:
        parse_bundle("version: 1", {block.path: block.body})
    else:
        parse_bundle(block.body, {})


@pytest.mark.parametrize(
    "page", [REPO / "README.md", REPO / "CONTRIBUTING.md", *sorted((REPO / "docs").rglob("*.md"))], ids=str
)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        found = (page.parent / path) if path else page
        assert found.exists(), target
        assert not anchor or anchor in _anchors(found.read_text()), target


def _anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPO / "Makefile").read_text(), re.MULTILINE))
    texts = [path.read_text() for path in (REPO / "README.md", REPO / "CONTRIBUTING.md", *(REPO / "docs").glob("*.md"))]

    assert {name for text in texts for name in re.findall(r"(?:`|\$ )make ([a-z-]+)", text)} <= targets
