"""Interference prediction: what a batch's execution grows to beside others. Imports nothing of ours."""
