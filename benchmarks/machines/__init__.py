"""Slowdowns on a type of machine that is new, from open data of others."""
