"""Models and model repositories that the benchmarks serve, and the models of rivals."""
