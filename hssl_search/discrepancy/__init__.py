"""Discrepancy: how different a head is from its base. Every measure is label-free."""
