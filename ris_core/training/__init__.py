"""Training a model: batches, the loop, its run folder, the card of what came of it."""
