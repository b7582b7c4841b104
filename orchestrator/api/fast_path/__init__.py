"""Calls that are answered from memory before any route is looked at."""
