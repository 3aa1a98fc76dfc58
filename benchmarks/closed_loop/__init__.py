"""A high class's latency next to a closed loop of a low one, on real servers on the CPU. `make bench-closed-loop`"""
