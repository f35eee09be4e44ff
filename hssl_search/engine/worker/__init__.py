"""The worker process's side of a job."""
