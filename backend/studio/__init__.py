"""What `ris up` is made of: the services and their commands, the supervisor, the home folder, Valkey, readiness."""
