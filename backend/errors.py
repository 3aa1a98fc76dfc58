"""Every exception that Isochrone raises on purpose; any other one that escapes is a bug.

IsochroneError
├── ConfigError    what a user wrote cannot be used: an option, a model parameter, a file
├── RequestError   one inference request cannot be served as it was asked
├── EngineError    a model's run failed
│   └── EngineLostError   what ran it is gone, whatever the batch was
├── AnswerError    an answer cannot be handed to Triton
└── ServerError    a tritonserver cannot be found, started or kept running

Each message is one sentence for the reader of a log: what is wrong, where, and what to do.
"""

from __future__ import annotations


class IsochroneError(Exception):
    """Base of all; catch it at the edges (command line, `initialize`, one request)."""


class ConfigError(IsochroneError):
    """What a user wrote cannot be used."""


class RequestError(IsochroneError):
    """One inference request cannot be served as it was asked."""


class EngineError(IsochroneError):
    """A model's run failed; other batches and models are not concerned."""


class EngineLostError(EngineError):
    """What runs a model is gone or going: no part of the batch would fare better."""


class AnswerError(IsochroneError):
    """An answer cannot be handed to Triton; the request is told so instead."""


class ServerError(IsochroneError):
    """A tritonserver cannot be found, started or kept running."""
