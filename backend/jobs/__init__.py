"""Work that outlives a request: a queue in Valkey, the job functions, the worker that runs nothing else."""
