"""Several parts together, without a server: other processes, whole simulations, reports."""
