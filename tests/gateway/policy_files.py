"""A policy directory that a test edits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gateway.policy import PolicyFiles
from llmesh.home import Home
from tests.envoy import ISSUERS, JWKS, READS

OWNERSHIP = "owners: {acme.support: support}\n"
NOTHING = "version: 1\n"
BROKEN = READS.replace("everyone", "'").replace("id:", "idd:")


@dataclass(frozen=True, slots=True)
class Folder:
    """The files, and the mesh directory beside them."""

    policies: Path
    home: Home

    @classmethod
    def make(cls, path: Path) -> Folder:
        """A right policy: everyone signed in reads."""
        made = cls(path / "policies", Home(path / "home").create())
        made.policies.mkdir()
        made.write("mesh.yaml", READS)
        made.write("issuers.yaml", ISSUERS)
        made.write("ownership.yaml", OWNERSHIP)
        made.write("corp.jwks.json", JWKS)
        return made

    def write(self, name: str, text: str) -> None:
        """Put a file there, or replace it."""
        path = self.policies / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def files(self, *, development: bool = True) -> PolicyFiles:
        """The policy files as a gateway that starts now has them."""
        return PolicyFiles(self.policies, self.home, development=development)
