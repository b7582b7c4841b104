"""Celery tasks: each is thin, takes ids, and calls `tenants`."""
