"""Transfer drivers: bring files to where jobs run, and back."""
