"""Measuring a model: figures, baselines, pictures of answers."""
