"""The version of the package: not in its `__init__`, which imports what asks for it."""

__version__ = "0.1.0"
