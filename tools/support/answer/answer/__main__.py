"""Serve ticket answers: `python -m answer`."""

import llmesh

from .reply import PROMPT
from .service import AnswersService


def main() -> None:
    """Serve until stopped."""
    llmesh.serve(AnswersService(), prompts=[PROMPT])


if __name__ == "__main__":
    main()
