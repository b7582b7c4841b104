"""The world around the orchestrator, for tests, benchmarks and the demo: real clients of real servers."""
