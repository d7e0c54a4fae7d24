"""A step of connecting as a container: `python -m backend.local.connect login`, then `... project`."""

import argparse
import sys

from backend.local.secrets import remember
from backend.projects import samples
from backend.projects.connect import connect, sign_in
from backend.settings import load
from ris_core.errors import RisError


def main() -> None:
    """One step as a container: `login` keeps a token in the home folder, `project` connects."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=("login", "project"))
    settings = load()
    if parser.parse_args().step == "login":
        remember(settings.home, {"RIS_LABEL_STUDIO_TOKEN": sign_in(settings)})
        print("Logged in to Label Studio.")
    else:
        connection = connect(settings, samples.photos)
        print(f"Project {connection.project} is connected to {connection.url}.")


if __name__ == "__main__":
    try:
        main()
    except RisError as error:
        sys.exit(str(error))
