"""Searches in virtual time: what workers would find is made up, or looked up in a table of measured heads."""
