"""Chaos: tenants talk while processes and servers are killed; afterwards every message is accounted for."""
