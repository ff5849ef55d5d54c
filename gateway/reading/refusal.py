"""Why something of an endpoint is not let in."""

from __future__ import annotations

from gateway.catalog import Step

__all__ = ["Refusal", "Unreachable", "printable"]


class Refusal(Exception):  # noqa: N818 - a verdict on what a peer sent, no error of ours
    """One service, or one endpoint, is refused; reason is UPPER_SNAKE."""

    def __init__(self, reason: str, message: str) -> None:
        """Say why, and what to do about it. What the peer put into it is made safe to print."""
        self.reason = reason
        self.message = printable(message)
        super().__init__(f"{reason}: {self.message}")

    def step(self, name: str, service: str = "") -> Step:
        """The failed step that reports this."""
        return Step(name=name, passed=False, service=service, reason=self.reason, message=self.message)


def printable(text: str) -> str:
    """The text without what a terminal would act on."""
    return "".join(each if each.isprintable() else "?" for each in text)


class Unreachable(Refusal):
    """The endpoint does not answer; it may later."""
