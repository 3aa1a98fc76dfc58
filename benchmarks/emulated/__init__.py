"""The emulated GPU: its law beside measured co-locations, and what it draws. `python -m benchmarks.emulated`"""
