"""Serve ticket answers: `python -m answer`."""

import llmesh

from .service import AnswersService


def main() -> None:
    """Serve until stopped."""
    llmesh.serve(AnswersService())


if __name__ == "__main__":
    main()
