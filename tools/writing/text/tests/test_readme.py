"""What the README shows is what happens."""

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import cast

import pytest
from text.service import TextService

from llmesh import testing

README = Path(__file__).resolve().parent.parent / "README.md"


async def test_the_python_of_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (source,) = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    shown: dict[str, object] = {}
    exec(compile(source, str(README), "exec"), shown)  # noqa: S102 - our own page
    main = cast("Callable[[str], Awaitable[None]]", shown["main"])
    async with testing.run(TextService()) as tool:
        await main(tool.server.address)
    assert capsys.readouterr().out == "0 The mesh is up.\n1 Call a tool!\n"
