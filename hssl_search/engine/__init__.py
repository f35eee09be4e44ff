"""The engine of a search."""
