"""Faults under load: processes that die or hang, resources that run out, connections that break, models that reload.

`python -m tests.chaos` runs them against a real tritonserver and checks an account of every request (`make chaos`).
"""
