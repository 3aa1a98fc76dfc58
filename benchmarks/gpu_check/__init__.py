"""Everything that needs a GPU, on one: build, check, profile, co-locate, report. `python -m benchmarks.gpu_check`"""
