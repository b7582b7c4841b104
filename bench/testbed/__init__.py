"""What tests, benchmarks and the demo have in common: running systems and ejabberds of their own, and real clients."""
