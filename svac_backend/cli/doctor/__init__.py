"""The checks of `svac-backend doctor`, one module for each place."""
