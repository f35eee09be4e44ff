"""What work costs, and what is therefore done."""
