"""Routers of a fleet of emulated GPUs in virtual time, over seeds. `python -m benchmarks.fleet`"""
