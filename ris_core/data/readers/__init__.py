"""Public datasets, read as they were published."""
