"""`python -m app.doctor`: the findings as JSON, a line each, as soon as each is known. The API runs it for GET /doctor.

It takes its settings from the environment, and reads no stored blobs: with many gigabytes that takes minutes.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from app.doctor import Patient, examine
from app.settings import Settings


def main() -> int:
    for finding in examine(Patient(Settings()), thorough=False):
        print(json.dumps(asdict(finding)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
