"""Commands to the pool, and the queues that carry them, on either broker."""
