"""The job queue from outside: putting jobs in, which may run, how one is stopped. The jobs are `backend.jobs`."""
