"""Who may call: tokens, users of the console, passwords, and repeated requests."""
