"""Tenants: the registry, their states, the operations that change them, and the audit log."""
