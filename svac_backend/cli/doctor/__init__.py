"""What `svac-backend doctor` looks at, one module for each place."""
