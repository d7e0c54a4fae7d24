"""Asking a model: predictions, how sure it is of them, and how far that can be believed."""
