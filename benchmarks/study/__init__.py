"""The paper's evaluation on this machine's real server: logs, numbers, plots and a report. `python -m benchmarks.study`."""
