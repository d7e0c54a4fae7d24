"""What is asked for, and which label it means."""
