"""What the controller does, one file a phase, and what runs a phase."""
