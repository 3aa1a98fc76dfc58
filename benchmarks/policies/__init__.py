"""Ours against its rivals in virtual time, and what each part of it is worth. `python -m benchmarks.policies`"""
