"""Information drivers: which hosts exist, and what they offer."""
