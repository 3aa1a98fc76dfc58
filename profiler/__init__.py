"""Measures what a model costs alone on a device: its latency and the share of the device's peaks it uses."""
