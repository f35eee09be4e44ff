"""The controller's side of a job."""
