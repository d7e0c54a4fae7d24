"""What to label next: strategies, the numbers that they go by, scores of tasks."""
