"""What went wrong on this machine, told to the person at the terminal."""

__all__ = ["Problem"]


class Problem(Exception):  # noqa: N818 what people meet is a problem, not always an error
    """A sentence that says what is wrong and one that says what to do next.

    For the command line alone: failures of calls are `llmesh.errors`.
    """

    def __init__(self, message: str, step: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.step = step
