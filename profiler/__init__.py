"""Measures a model's solo runs on a device: latency, and the share of the device's peaks that they use."""
