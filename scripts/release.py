"""One release: `make release VERSION=1.2.0` sets the version everywhere, closes the changelog and builds the wheel.

It changes files and builds; committing, tagging and pushing stay with whoever releases, and are printed. Whatever is
wrong is found before anything is changed. Knows nothing of what is released.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
UNRELEASED = "## Unreleased\n"
# Where the version stands: the file, and what is before and after it.
PLACES = (
    ("pyproject.toml", r'(?m)^(version = ")[^"]+(")'),
    ("CITATION.cff", r"(?m)^(version: )\S+()$"),
    ("docker-compose.yml", r"(image: ris-studio:)\d+\.\d+\.\d+()"),
    ("deploy/kubernetes/kustomization.yaml", r"(?m)(name: ris-studio\n\s+newTag: )\d+\.\d+\.\d+()"),
    ("deploy/kubernetes-gpu/kustomization.yaml", r"(?m)(name: ris-studio\n\s+newTag: )\d+\.\d+\.\d+()"),
)


def version_of(text: str) -> tuple[int, int, int]:
    """Three numbers. Raises ValueError."""
    match = re.fullmatch(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)", text)
    if not match:
        raise ValueError(f"{text or 'VERSION'} isn't a version: write three numbers, as make release VERSION=1.2.0.")
    return int(match[1]), int(match[2]), int(match[3])


def released(changelog: str, version: str, day: str) -> str:
    """The changelog with what was unreleased under a version, and nothing unreleased. Raises ValueError."""
    before, heading, after = changelog.partition(UNRELEASED)
    if not heading:
        raise ValueError(f"CHANGELOG.md has no section {UNRELEASED.strip()!r}.")
    if re.search(rf"^## {re.escape(version)}\b", changelog, flags=re.M):
        raise ValueError(f"CHANGELOG.md has a section of {version} already.")
    if not re.match(r"\s*[-*] \S", after.split("\n## ")[0]):
        raise ValueError("CHANGELOG.md says nothing under Unreleased: write what changes for people who use it.")
    return f"{before}{UNRELEASED}\n## {version} ({day})\n{after}"


def changed(root: Path, version: str, day: str) -> dict[Path, str]:
    """What each file is to be. Raises ValueError, and changes nothing."""
    project = (root / "pyproject.toml").read_text(encoding="utf-8")
    present = re.search(r'(?m)^version = "([^"]+)"', project)
    if present and version_of(version) < version_of(present[1]):
        raise ValueError(f"{version} is older than {present[1]}, which pyproject.toml says.")
    files = {root / "CHANGELOG.md": released((root / "CHANGELOG.md").read_text(encoding="utf-8"), version, day)}
    for name, pattern in PLACES:
        text, count = re.subn(pattern, rf"\g<1>{version}\g<2>", (root / name).read_text(encoding="utf-8"))
        if not count:
            raise ValueError(f"{name} doesn't say its version where {pattern} looks for it.")
        files[root / name] = text
    return files


def build(root: Path) -> Path:
    """The wheel, in dist/."""
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(root / "dist"), str(root)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return max((root / "dist").glob("*.whl"), key=lambda wheel: wheel.stat().st_mtime)


def main() -> int:
    """Release the version that the arguments name -> the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("version")
    parser.add_argument("--root", type=Path, default=ROOT, help="checkout to release")
    arguments = parser.parse_args()
    version, root = arguments.version, arguments.root
    try:
        version_of(version)
        files = changed(root, version, f"{datetime.now(UTC):%Y-%m-%d}")
    except ValueError as error:
        print(f"release: {error}", file=sys.stderr)
        return 1
    for file, text in files.items():
        file.write_text(text, encoding="utf-8")
    print(f"Wheel: {build(root)}")
    print(f"Images: ris-studio:{version} (CPU), ris-studio:{version}-gpu, ris-studio-label-studio:1.23.2")
    print("  docker compose build && docker compose --profile gpu build")
    print(f"Then: git commit -am 'Release {version}' && git tag v{version} && git push --tags")
    return 0


if __name__ == "__main__":
    sys.exit(main())
