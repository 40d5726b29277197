"""What makes the model fast on CPUs, with the same results."""
