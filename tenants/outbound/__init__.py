"""HTTP to the servers of tenants."""
