"""Names, rules of text, errors, and other things without input or output."""
