"""What somebody hostile does, each file named after it: every test of them once succeeded against this system."""
