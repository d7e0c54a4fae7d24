"""Serving one project's model: the models in memory, what a project asks of them, predictions."""
