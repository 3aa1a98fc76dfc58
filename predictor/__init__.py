"""Interference prediction: the slowdown of a batch by its co-runners. Imports nothing of ours."""
