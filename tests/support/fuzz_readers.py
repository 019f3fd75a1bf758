"""Fuzz the readers: a damaged file must quickly give a Scene or an error of one sentence.

    python -m tests.support.fuzz_readers --count 100000

Files of every accepted format are damaged byte by byte (hypothesis chooses where and how) and
opened in another process, which is watched: a crash, an error that is no sentence, more than 5
seconds of computing for one file or more than 1 GB of memory is a finding, and its file is kept.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from PIL import Image

from earthvlm.scenes.bands import BANDS
from earthvlm.scenes.scene import Scene

LONGEST_SECONDS = 5.0
LARGEST_BYTES = 1_000_000_000
STUCK_SECONDS = 300.0  # of waiting without computing
BATCH = 5_000


@dataclass
class Findings:
    """The failures with their files, and the number of files tried."""

    tried: int = 0
    opened: int = 0
    peak_bytes: int = 0
    longest_seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)


def make_samples() -> dict[str, bytes]:
    """Return small files of every accepted format by name."""
    rng = np.random.default_rng(0)
    scene = Scene.from_array(rng.uniform(200, 4000, (16, 16, 12)).astype(np.float32), BANDS)
    picture = Image.fromarray(rng.integers(0, 255, (24, 24, 3), dtype=np.uint8))
    samples = {}
    with tempfile.TemporaryDirectory() as folder:
        clean = Path(folder, "clean.tif")
        scene.save(clean)
        samples["clean.tif"] = clean.read_bytes()
        for name, options in (
            ("plain.tif", {"driver": "GTiff", "nodata": 0}),
            ("tiled.tif", {"driver": "GTiff", "tiled": True, "blockxsize": 16, "blockysize": 16}),
            ("lzw.tif", {"driver": "GTiff", "compress": "lzw", "interleave": "pixel"}),
            ("wavelets.jp2", {"driver": "JP2OpenJPEG"}),
        ):
            samples[name] = _write_raster(Path(folder, name), options)
    for name in ("PNG", "JPEG", "WEBP"):
        data = io.BytesIO()
        picture.save(data, name)
        samples[f"photo.{name.lower()}"] = data.getvalue()
    data = io.BytesIO()
    picture.convert("P").save(data, "PNG")
    samples["palette.png"] = data.getvalue()
    return samples


def _write_raster(path: Path, options: dict) -> bytes:
    import rasterio
    from rasterio.transform import from_origin

    grid = {"crs": "EPSG:32633", "transform": from_origin(400_000, 5_800_000, 10, 10)}
    values = np.random.default_rng(1).integers(200, 4000, (13, 16, 16)).astype(np.uint16)
    values[10] //= 100  # cirrus sees no ground
    with rasterio.open(
        path, "w", width=16, height=16, count=13, dtype="uint16", **grid, **options
    ) as file:
        file.write(values)
    return path.read_bytes()


@st.composite
def damaged_files(draw: st.DrawFn, samples: dict[str, bytes]) -> tuple[str, bytes]:
    """Pick a sample at random, and return its name and its damaged bytes."""
    name = draw(st.sampled_from(sorted(samples)))
    data = bytearray(samples[name])
    for _ in range(draw(st.integers(1, 6))):
        # Headers decide most, and lie at either end.
        far = draw(st.sampled_from((64, 512, len(data))))
        at = draw(st.integers(0, max(0, min(far, len(data)) - 1)))
        at = len(data) - 1 - at if draw(st.booleans()) and data else at
        kind = draw(st.sampled_from(("set", "number", "cut", "insert", "drop", "copy")))
        if kind == "set":
            data[at : at + 1] = draw(st.binary(min_size=1, max_size=4))
        elif kind == "number":
            number = draw(st.sampled_from((0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)))
            data[at : at + 4] = number.to_bytes(4, draw(st.sampled_from(("little", "big"))))
        elif kind == "cut":
            del data[at:]
        elif kind == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=64))
        elif kind == "drop":
            del data[at : at + draw(st.integers(1, 64))]
        else:
            data[at:at] = data[at : at + draw(st.integers(1, 256))]
    return name, bytes(data)


def open_damaged(count: int, number: int, folder: str, state) -> None:
    """Open `count` damaged files; `state` holds tried, opened, when this one began, longest.

    Times are of the processor, so that a busy machine makes no findings.
    """
    samples = make_samples()
    now = Path(folder)

    @seed(number)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(damaged_files(samples))
    def check(damaged: tuple[str, bytes]) -> None:
        name, data = damaged
        path = now / name
        path.write_bytes(data)
        state[2] = began = time.process_time()
        try:
            Scene.open(path)
            state[1] += 1
        except (ValueError, FileNotFoundError) as error:
            if not str(error) or "\n" in str(error).strip():
                raise AssertionError(f"no sentence: {error!r}") from error
        state[0] += 1
        state[3] = max(state[3], time.process_time() - began)
        path.unlink()

    check()


def fuzz(count: int, kept: Path, first_seed: int = 0, report: bool = False) -> Findings:
    """Open `count` damaged files, and save those that cause a failure in `kept`."""
    findings, number = Findings(), first_seed
    context = multiprocessing.get_context("spawn")
    while findings.tried < count and len(findings.wrong) < 20:
        with tempfile.TemporaryDirectory(prefix="earthvlm-fuzz-") as folder:
            state = context.Array("d", [0.0, 0.0, 0.0, 0.0], lock=False)
            batch = min(BATCH, count - findings.tried)
            worker = context.Process(target=open_damaged, args=(batch, number, folder, state))
            worker.start()
            trouble = _watch(worker, state, findings)
            findings.tried += int(state[0]) + bool(trouble)
            findings.opened += int(state[1])
            findings.longest_seconds = max(findings.longest_seconds, state[3])
            if trouble:
                names = []
                for file in Path(folder).iterdir():
                    names.append(f"{number}-{file.name}")
                    shutil.copy(file, kept / names[-1])
                findings.wrong.append(f"{trouble}: {', '.join(names)}")
        number += 1
        if report:
            print(f"  {findings.tried:,} tried, {len(findings.wrong)} did harm", flush=True)
    return findings


def _watch(worker, state, findings: Findings) -> str:
    """Wait for a process and return its failure, if any; a process that fails is killed."""
    process = psutil.Process(worker.pid)
    tried, changed = 0.0, time.monotonic()
    while worker.is_alive():
        try:
            findings.peak_bytes = max(findings.peak_bytes, process.memory_info().rss)
            spent = process.cpu_times()
        except psutil.Error:
            break
        if state[0] != tried:
            tried, changed = state[0], time.monotonic()
        computes = state[2] and spent.user + spent.system - state[2] > LONGEST_SECONDS
        trouble = ""
        if computes or time.monotonic() - changed > STUCK_SECONDS:
            trouble = "took too long"
        elif findings.peak_bytes > LARGEST_BYTES:
            trouble = "took too much memory"
        if trouble:
            worker.kill()
            worker.join()
            return trouble
        worker.join(0.05)
    worker.join()
    return "" if worker.exitcode == 0 else f"ended with {worker.exitcode}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000, help="number of files (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other files")
    parser.add_argument("--kept", type=Path, default=Path("runs/fuzz"), help="for files that harm")
    options = parser.parse_args()
    options.kept.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    findings = fuzz(options.count, options.kept, options.seed, report=True)
    print(
        f"{findings.tried:,} damaged files in {time.monotonic() - began:.0f} s: "
        f"{findings.opened:,} opened all the same, longest {findings.longest_seconds:.2f} s, "
        f"peak memory {findings.peak_bytes / 1e6:.0f} MB, {len(findings.wrong)} did harm"
    )
    for wrong in findings.wrong:
        print(f"  {wrong}")
    return 1 if findings.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
