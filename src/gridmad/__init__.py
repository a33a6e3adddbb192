"""Middleware access drivers for the GridWay metascheduler, and a live view into its jobs."""

__version__ = "0.1.0"
