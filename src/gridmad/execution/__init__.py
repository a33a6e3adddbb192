"""Execution drivers: run jobs, follow them, end them."""
