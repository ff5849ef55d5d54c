"""Running a command as the installed script does."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest import mock

import pytest

from llmesh.cli import main


@dataclass(frozen=True)
class Result:
    """What a command said and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Command:
    """`command("tools", "list")` is `llmesh tools list`."""

    def __init__(self, capsys: pytest.CaptureFixture[str], type_in: Callable[[str], None]) -> None:
        self._capsys = capsys
        self._type_in = type_in

    def __call__(self, *args: str, stdin: str = "") -> Result:
        self._type_in(stdin)
        code = 0
        with mock.patch.object(sys, "argv", ["llmesh", *args]):
            try:
                main()
            except SystemExit as ended:
                code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        said = self._capsys.readouterr()
        return Result(code, said.out, said.err)
