"""The wheel carries the model: from another folder, with nothing of the checkout in reach, it segments."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

from backend.projects.samples import photos

ROOT = Path(__file__).parents[1]


def test_the_wheel_segments_anywhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, timeout=200)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    # What lies beside the Python files too: scripts for Valkey, the console's pages.
    beside = [path for path in ROOT.glob("backend/**/*") if path.suffix in (".lua", ".html", ".css", ".js", ".svg")]
    assert len(beside) > 15
    for path in beside:
        assert (tmp_path / "installed" / path.relative_to(ROOT)).is_file()
    (tmp_path / "cat.png").write_bytes(dict(photos())["chelsea.png"])
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'installed')!r}); sys.argv[0] = 'ris'\n"
        "import ris_core, backend.cli.main; assert 'installed' in ris_core.__file__\n"
        "from ris_core.checkpoint_files import shipped; assert 'installed' in str(shipped())\n"
        "backend.cli.main.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "segment", "cat.png", "the cat", "--json"],
        cwd=tmp_path,
        env={"HF_HUB_OFFLINE": "1", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["results"][0]["present"]
