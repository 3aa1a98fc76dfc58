"""Fuzzing of all that is read from other processes, from clients and from files.

A target in `targets/` is a module with `FORMAT`, of `mutation.FORMATS`, and `check(data)`, which passes `data` to the
product and lets only those errors pass that are documented there. `corpus/TARGET/` has what mutation starts from.
`python -m tests.fuzz TARGET` runs one under atheris (`make fuzz`); `test_fuzz.py` runs all for a moment, seeded.
"""
