"""Events on their way to the servers of tenants: kept, claimed, sent, and tried again."""
