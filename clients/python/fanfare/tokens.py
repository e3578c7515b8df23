"""Who a client is: a token, or a function that is asked for one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from .errors import FanfareError
from .link import ABNORMAL, Lost

logger = logging.getLogger("fanfare")

#: A token, or a function that is asked for one before each connection, and again before it expires.
#: What the function raises is taken for a moment's trouble, unless it is a `FanfareError`.
Token: TypeAlias = str | Callable[[], Awaitable[str]]

#: A token is refreshed when this part of its time is over.
REFRESH_AT = 0.75
#: The shortest and the longest wait before a token is asked for again, in seconds.
REFRESH_MIN, REFRESH_MAX = 0.5, 86_400.0


class Tokens:
    """Where tokens come from; `most` seconds may it take."""

    def __init__(self, token: Token | None, most: float) -> None:
        self._token = token
        self._most = most

    @property
    def renews(self) -> bool:
        """Whether there may be a better one another time."""
        return callable(self._token)

    async def fresh(self) -> str:
        """The token to show, or an empty one; raises `Lost` where there is none at the moment."""
        if self._token is None or isinstance(self._token, str):
            return self._token or ""
        try:
            return await asyncio.wait_for(self._token(), self._most)
        except FanfareError as error:
            raise Lost(ABNORMAL, error.message, error) from None
        except Exception as error:
            # Whatever it is: who asks a server of their own for a token will get one again.
            logger.warning("there is no token: %r", error)
            raise Lost(ABNORMAL, f"there is no token: {error!r}") from None


def refresh_in(expires: float) -> float:
    """After how many seconds to ask for another token, if one expires in so many."""
    return min(max(expires * REFRESH_AT, REFRESH_MIN), REFRESH_MAX)
