"""What a process opens when it starts, and remembers while it runs."""
