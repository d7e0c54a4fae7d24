"""What several hosts share without a file system in common: a bucket, and each home folder as a cache of it."""
