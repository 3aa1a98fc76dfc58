"""Measurements on a real server, and the demo. Not part of the installed package."""
