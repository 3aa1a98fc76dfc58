"""Exceptions that Isochrone raises on purpose; any other one that escapes is a bug.

IsochroneError
├── ConfigError    what a user wrote cannot be used: an option, a model parameter, a file
├── RequestError   one inference request cannot be served as it was asked
├── EngineError    a model's run failed
│   └── EngineLostError   what ran it is gone, whatever the batch was
├── AnswerError    an answer cannot be handed to Triton
└── ServerError    a tritonserver, or a process of a device, cannot be found, started or kept running
    └── OtherReleaseError   that process is of another release, and is not understood

Each message is one sentence for the reader of a log: what is wrong, where, and what to do.
"""

from __future__ import annotations

_SHOWN_CHARS_MAX = 80


class IsochroneError(Exception):
    """Base of all; catch it at the edges (command line, `initialize`, one request)."""


class ConfigError(IsochroneError):
    """Configuration or option of a user that cannot be used."""


class RequestError(IsochroneError):
    """Inference request that cannot be served as it was asked."""


class EngineError(IsochroneError):
    """Failure of a model's run; other batches and models are not concerned."""


class EngineLostError(EngineError):
    """Loss of what runs a model: no part of the batch would fare better."""


class AnswerError(IsochroneError):
    """Answer that cannot be handed to Triton; the request is told so instead."""


class ServerError(IsochroneError):
    """Tritonserver, or process of a device, that cannot be found, started or kept running."""


class OtherReleaseError(ServerError):
    """Process of a device that is of another release: this one's model does without it."""


def quoted(text: str) -> str:
    """A user's text as a sentence holds it: no longer than it takes to know it again, and on one line."""
    return one_line(text if len(text) <= _SHOWN_CHARS_MAX else f"{text[:_SHOWN_CHARS_MAX]}…")


def one_line(text: str) -> str:
    """A text with what is not printable escaped: C, and so Triton, ends a sentence at a NUL."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
