"""`python -m backend.doctor [PROJECT]`: the checks in a process of its own, a line of JSON each; see aside.py."""

import json
import sys
from dataclasses import asdict

from backend.doctor import diagnose

for finding in diagnose(int(sys.argv[1]) if sys.argv[1:] else None):
    sys.stdout.write(json.dumps(asdict(finding)) + "\n")
    sys.stdout.flush()
