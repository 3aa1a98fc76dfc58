"""What every benchmark needs once: steps and their records, servers, loads, the machine's condition, tables."""
