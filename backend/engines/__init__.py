"""Engines run one batch of arrays. They know nothing of requests, Triton, or the scheduler."""
