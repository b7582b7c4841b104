"""What the benchmarks have in common: systems, loads, clients that only count, tables and results."""
