"""Measurements and the demo: both are users of a running system, and see only what users see."""
