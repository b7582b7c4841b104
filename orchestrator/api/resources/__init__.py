"""The resources of the panel's and the tenants' own API, one module for each."""
