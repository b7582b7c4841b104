"""The steps of a tenant's life, and the comparison of what is with what shall be."""
