"""The pool worker: carries every tenant's visitors over a few component connections (XEP-0114)."""
