"""Options that many commands share, so that each reads the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

HomeOption = Annotated[
    Path | None,
    typer.Option("--home", envvar="LLMESH_HOME", help="The mesh directory. Default: ./.llmesh", show_default=False),
]
AddressOption = Annotated[
    str,
    typer.Option(
        "--address", envvar="LLMESH_ADDRESS", help="Where the mesh listens. Default: where `llmesh up` put it."
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Write JSON to stdout, and nothing else; a failure as JSON to stderr.")
]
AsOption = Annotated[
    str, typer.Option("--as", metavar="NAME", help="Who to be, of those signed in. Default: the last one.")
]
MeshFileOption = Annotated[
    Path,
    typer.Option("--mesh-file", "-f", envvar="LLMESH_MESH_FILE", help="What runs on the mesh."),
]
