"""Quality, measured the official way: predictions on referring-video benchmarks, their J and F, and a report."""
