"""Run by itself: what ultralytics' own reader makes of an export, and a step of its own training.

    python official_yolo.py FOLDER RESULT [--train]

writes the names, and of each picture the classes, boxes and masks that its loss would see, to RESULT. ultralytics
imports torchvision and matplotlib for what isn't needed here; a process of its own can do without.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image

torch.set_num_threads(1)
_settings = Path(sys.argv[2]).parent / "settings"
os.environ |= {"YOLO_AUTOINSTALL": "false", "YOLO_OFFLINE": "true", "YOLO_CONFIG_DIR": str(_settings)}
# It looks for fonts to draw with before it reads anything; nothing is drawn here.
for _font in ("Arial.ttf", "Arial.Unicode.ttf"):
    (_settings / "Ultralytics").mkdir(parents=True, exist_ok=True)
    (_settings / "Ultralytics" / _font).touch()
for _name in ("torchvision", "matplotlib", "matplotlib.font_manager"):
    sys.modules[_name] = ModuleType(_name)
_version = importlib.metadata.version
importlib.metadata.version = lambda name: "0.28.0" if name == "torchvision" else _version(name)

from ultralytics.cfg import get_cfg  # noqa: E402
from ultralytics.data.dataset import YOLODataset  # noqa: E402
from ultralytics.data.utils import check_det_dataset  # noqa: E402
from ultralytics.utils.nms import TorchNMS  # noqa: E402

# Their own, which they use where torchvision's isn't there.
sys.modules["torchvision"].ops = TorchNMS


def read(data: dict[str, Any], split: str) -> dict[str, Any]:
    """By the picture's name its classes, normalised xywh boxes, and masks at the picture's own size."""
    hyp = get_cfg(overrides={"mask_ratio": 1, "overlap_mask": False, "task": "segment"})
    pictures = sorted(path for path in Path(data[split]).iterdir() if path.suffix != ".cache")
    side = max(side for path in pictures for side in _size(path))
    dataset = YOLODataset(
        img_path=data[split], imgsz=side, augment=False, rect=False, hyp=hyp, data=data, task="segment"
    )
    assert len(dataset) == len(pictures), "no picture was dropped as corrupt"
    found = {}
    for item in dataset:
        height, width = item["ori_shape"]
        # Half of the padding of its letterbox, an odd pixel of it behind.
        top, left = ((side - length) // 2 for length in (height, width))
        rows, columns = slice(top, top + height), slice(left, left + width)
        found[Path(item["im_file"]).name] = {
            "classes": item["cls"].flatten().int().numpy(),
            "boxes": item["bboxes"].numpy() * side - np.array([left, top, 0, 0]),
            "masks": item["masks"].numpy().astype(bool)[:, rows, columns],
            "pixels": item["img"].numpy().transpose(1, 2, 0)[rows, columns],
        }
    return found


def _size(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def train(folder: Path, work: Path) -> dict[str, float]:
    """One pass of a tiny model with random weights."""
    from ultralytics.models.yolo.segment import SegmentationTrainer

    # The weights are nothing to keep, and keeping them takes polars.
    SegmentationTrainer.save_model = lambda trainer: False
    settings = {"model": "yolo11n-seg.yaml", "data": str(folder / "data.yaml"), "project": str(work), "device": "cpu"}
    small = {"epochs": 1, "imgsz": 64, "batch": 4, "workers": 0, "plots": False, "amp": False}
    trainer = SegmentationTrainer(overrides=settings | small)
    trainer.train()
    return {name: float(value) for name, value in trainer.tloss.items()}


def main(folder: Path, result: Path, is_trained: bool) -> None:
    data = check_det_dataset(str(folder / "data.yaml"), autodownload=False)
    pictures = {split: read(data, split) for split in ("train", "val", "test") if data.get(split)}
    losses = train(folder, result.parent / "runs") if is_trained else {}
    torch.save({"names": data["names"], "pictures": pictures, "losses": losses}, result)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), "--train" in sys.argv)
