"""The database: its tables by aggregate, claims on rows, and migrations."""
