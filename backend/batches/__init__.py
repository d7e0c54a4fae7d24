"""Pre-labelling in the background, durable: the store, leases, and the runner that workers share."""
