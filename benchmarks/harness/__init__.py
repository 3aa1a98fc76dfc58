"""Parts that every benchmark needs: steps and their records, servers, loads, the machine's condition, tables."""
