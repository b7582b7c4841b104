"""Accounts in the registry and in ejabberd."""
