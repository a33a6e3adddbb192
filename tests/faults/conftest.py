"""The scene of all tests here."""

from tests.faults.scene import scene

__all__ = ["scene"]
