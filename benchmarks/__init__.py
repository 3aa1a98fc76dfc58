"""Measurements on a real server, and the demo. Not part of the installed package."""

from backend import numerical_threads  # noqa: F401 - before whatever else imports numpy
