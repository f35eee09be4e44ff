"""Runs jobs through Ray Tune."""
