"""Read text from an image made on the spot, with the detector and the recogniser of `rapidocr`.

Each network is compiled by transect once, for every size of image and of line, and runs in the
place of ONNX Runtime within rapidocr's own pipeline; both read the same images. Prints what was
read at three image sizes, the time of the networks, and the largest error of their outputs.
Run it with `python examples/rapidocr_demo.py`.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rapidocr
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.table import Table

import transect

SIZES = ((640, 320), (960, 480), (1216, 736))
LINES = ("One program for every size", "graph, kernel and library", "2026: read by transect")
ROUNDS = 3
TOLERANCE = 2e-3

Network = Callable[[np.ndarray], np.ndarray]


def picture(width: int, height: int) -> np.ndarray:
    """Black text on white, as (height, width, 3) uint8."""
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=height / 10)
    for number, line in enumerate(LINES):
        draw.text((width / 16, height * (0.15 + 0.25 * number)), line, fill="black", font=font)
    return np.asarray(image)


@dataclass
class Recorded:
    """A network that keeps the inputs and outputs of its calls."""

    network: Network
    calls: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        output = self.network(batch)
        self.calls.append((batch, output))
        return output


def read(engine: Any, image: np.ndarray, networks: tuple[Network, Network]) -> tuple[str, ...]:
    """The lines that rapidocr finds with a detector and a recogniser."""
    engine.text_det.session, engine.text_rec.session = networks
    found = engine(image, use_cls=False)
    return tuple(found.txts or ())


def milliseconds(network: Network, inputs: list[np.ndarray]) -> float:
    """One run over all inputs, after a pause in which other threads fall asleep."""
    time.sleep(0.02)
    network(inputs[0])
    start = time.perf_counter()
    for item in inputs:
        network(item)
    return (time.perf_counter() - start) * 1e3


def main() -> None:
    logging.getLogger("RapidOCR").setLevel(logging.ERROR)
    console = Console()
    threads = transect.num_threads()
    engine = rapidocr.RapidOCR(
        params={
            "Global.log_level": "error",
            "EngineConfig.onnxruntime.intra_op_num_threads": threads,
        }
    )
    engine(picture(*SIZES[0]), use_cls=False)  # its first call loads the networks
    peers: tuple[Network, Network] = (engine.text_det.session, engine.text_rec.session)
    folder = Path(rapidocr.__file__).parent / "models"
    files = [next(folder.glob(f"*_{kind}_*.onnx")) for kind in ("det", "rec")]
    ours: list[Network] = []
    for file in files:
        start = time.perf_counter()
        ours.append(transect.compile(file))
        console.print(f"{file.name}: compiled in {time.perf_counter() - start:.2f} s")

    lines = Table(title="What was read", show_edge=False)
    for title in ("image", "transect", "as ONNX Runtime"):
        lines.add_column(title)
    times = Table(title=f"The networks, {threads} threads", show_edge=False)
    for title in ("image", "network", "transect ms", "ONNX Runtime ms", "ratio", "largest error"):
        times.add_column(title, justify="right")
    for width, height in SIZES:
        image = picture(width, height)
        recorded = (Recorded(peers[0]), Recorded(peers[1]))
        expected = read(engine, image, recorded)
        found = read(engine, image, (ours[0], ours[1]))
        if found != expected or not found:
            raise SystemExit(f"{width}x{height}: read {found}, ONNX Runtime {expected}")
        lines.add_row(f"{width}x{height}", "\n".join(found), "yes")
        for title, mine, theirs in zip(("detector", "recogniser"), ours, recorded, strict=True):
            error = max(float(np.max(np.abs(mine(x) - y))) for x, y in theirs.calls)
            if not error < TOLERANCE:
                raise SystemExit(f"{width}x{height}: the {title} differs by {error}")
            inputs = [x for x, _ in theirs.calls]
            taken = [
                (milliseconds(mine, inputs), milliseconds(theirs.network, inputs))
                for _ in range(ROUNDS)
            ]
            a, b = (statistics.median(of) for of in zip(*taken, strict=True))
            times.add_row(
                f"{width}x{height}", title, f"{a:.1f}", f"{b:.1f}", f"{b / a:.2f}x", f"{error:.1e}"
            )
    console.print(lines)
    console.print(times)


if __name__ == "__main__":
    main()
