"""Runs a stock tritonserver with this backend: finds it, assembles its backends, starts it, cleans up."""
