"""The paper's evaluation on a real server: logs, numbers, plots and a report. `python -m benchmarks.study`"""
