"""Topics and filters: what has a wildcard is a filter."""

from __future__ import annotations


def is_filter(name: str) -> bool:
    """Whether a name stands for many topics."""
    segments = name.split(".")
    return "*" in segments or segments[-1] == ">"


class Pattern:
    """Which topics a name stands for."""

    def __init__(self, name: str) -> None:
        self._segments = name.split(".")
        self._open = self._segments[-1] == ">"

    def matches(self, topic: str) -> bool:
        segments = topic.split(".")
        fixed = self._segments[:-1] if self._open else self._segments
        if self._open and len(segments) < len(self._segments):
            return False
        if not self._open and len(segments) != len(fixed):
            return False
        return all(ours in ("*", theirs) for ours, theirs in zip(fixed, segments, strict=False))
