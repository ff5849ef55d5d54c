"""Page tokens: where a page ended, and of which list."""

from __future__ import annotations

import base64
import binascii

from llmesh.errors import InvalidCall, Violation
from tickets.ticket import Filter

__all__ = ["read_token", "write_token"]

_NUMBERS = 2**63


def write_token(last_number: int, filters: Filter) -> str:
    """The token of the page after the one that ends with ticket last_number."""
    text = f"{last_number}.{filters.state}.{filters.priority}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_token(token: str, filters: Filter) -> int:
    """The ticket number that the page before ended with.

    Raises InvalidCall unless the token is one of this list's, with these filters.
    """
    try:
        text = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True).decode()
        number = int(text.partition(".")[0])
    except (binascii.Error, ValueError) as err:
        raise _refusal() from err
    # One spelling only: a token that was not written here is refused.
    if not 0 < number < _NUMBERS or token != write_token(number, filters):
        raise _refusal()
    return number


def _refusal() -> InvalidCall:
    violation = Violation("page_token", "must be the next_page_token of a list with the same filters")
    return InvalidCall("the page token is not of this list", [violation], reason="PAGE_TOKEN_UNKNOWN")
