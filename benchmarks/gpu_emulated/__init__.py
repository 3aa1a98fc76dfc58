"""Rivals on an emulated GPU in virtual time, over draws of its law's constants. `python -m benchmarks.gpu_emulated`"""
