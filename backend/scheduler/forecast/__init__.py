"""Forecasts of what runs, of what could be launched, and of what is still to come."""
