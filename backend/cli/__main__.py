"""`python -m backend.cli`, which is `ris`."""

from backend.cli.main import main

main()
