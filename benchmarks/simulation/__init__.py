"""The search in virtual time."""
