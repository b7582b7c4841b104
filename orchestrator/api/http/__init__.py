"""What the resources have in common: who calls, bodies, errors, documentation, connections."""
