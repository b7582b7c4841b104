"""What people and monitors are shown."""
