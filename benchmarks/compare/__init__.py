"""Alternatives that a user would run instead, on real servers with the same models, engine and lanes. `make bench`"""
