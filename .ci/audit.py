"""Whether the packages that constraints.txt pins have known vulnerabilities, by pip-audit and PyPI's advisories.

Ends with 1 when one has. Where the advisories cannot be had (no network, an index that has none) it says so in one line
and ends with 0: that is news about the machine and not about the packages.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

PINS = Path(__file__).parents[1] / "constraints.txt"
LONGEST_SECONDS = 300


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        try:
            # apart from the project's packages, which its own would change
            venv.create(f"{folder}/venv", with_pip=True)
            pip = [f"{folder}/venv/bin/pip", "install", "--quiet", "--disable-pip-version-check", "pip-audit>=2.10"]
            audit = [f"{folder}/venv/bin/pip-audit", "--requirement", PINS, "--no-deps", "--disable-pip"]
            audit += ["--progress-spinner", "off", "--format", "json", "--output", report]
            for command in (pip, audit):
                subprocess.run(command, capture_output=True, timeout=LONGEST_SECONDS, check=False)
            found = json.loads(report.read_text(encoding="utf-8"))["dependencies"]
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            print(f"pip-audit: cannot be had or reach PyPI here ({type(error).__name__}); nothing was audited")
            return 0
    audited = [package for package in found if "skip_reason" not in package]
    vulnerable = [package for package in audited if package["vulns"]]
    for package in vulnerable:
        names = ", ".join(advisory["id"] for advisory in package["vulns"])
        print(f"pip-audit: {package['name']} {package['version']} has {names}")
    if not audited:
        print(f"pip-audit: this index knows no advisories; none of the {len(found)} packages was audited")
    else:
        skipped = len(found) - len(audited)
        print(f"pip-audit: {len(audited)} packages audited, {len(vulnerable)} vulnerable, {skipped} not known to PyPI")
    return 1 if vulnerable else 0


if __name__ == "__main__":
    sys.exit(main())
