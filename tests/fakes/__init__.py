"""Stand-ins for devices, models and NVIDIA's libraries, and builders of messages and graphs, for every test."""
