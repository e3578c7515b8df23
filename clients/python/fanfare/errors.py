"""What goes wrong: refusals of the server or of the client itself, and events that make no sense."""

from __future__ import annotations


class FanfareError(Exception):
    """A refusal, by the server or by the client itself; then `code` is 0."""

    def __init__(self, code: int, name: str, retry: str, message: str) -> None:
        """Programs compare `code` or `name`; `retry` is never, later, refresh or resume."""
        super().__init__(message)
        self.code = code
        self.name = name
        self.retry = retry

    @property
    def message(self) -> str:
        """The sentence for a person."""
        return str(self.args[0])

    def __repr__(self) -> str:
        return f"FanfareError({self.code}, {self.name!r}, {self.retry!r}, {self.message!r})"


class Malformed(Exception):  # noqa: N818 - it never leaves the package
    """What has come cannot be what the server meant to say."""


def closed() -> FanfareError:
    return FanfareError(0, "closed", "never", "the client was closed")


def unsubscribed() -> FanfareError:
    return FanfareError(0, "unsubscribed", "never", "the application ended the subscription")


def disconnected() -> FanfareError:
    return FanfareError(0, "disconnected", "later", "the connection ended before the answer came")


def unknown_outcome() -> FanfareError:
    text = "the connection ended before the answer came, so the outcome is not known"
    return FanfareError(0, "unknown", "later", text)
