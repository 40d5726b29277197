"""What the worker can do: one module for each kind of job."""
