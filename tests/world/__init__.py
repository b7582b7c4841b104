"""What only the tests need around the orchestrator: tenants of their own, hostile clients, other people's servers."""
