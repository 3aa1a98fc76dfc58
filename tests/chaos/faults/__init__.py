"""Kinds of faults: each does something to a running server and undoes it."""
