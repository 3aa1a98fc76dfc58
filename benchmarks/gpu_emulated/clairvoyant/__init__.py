"""Schedules found by one that knows all arrivals and the law: what could be had at all. Emulated."""
