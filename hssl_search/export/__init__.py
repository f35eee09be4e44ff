"""Exporters of the winner, one file a target."""
