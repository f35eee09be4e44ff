"""Evaluation: how good a representation is."""
