"""Figures of the data room, as ratios measured in one run on one machine: archive, reading, loader, memory.

    uv run python benchmarks/data.py [--quick]

Generated images; Tiny ImageNet's and ImageNet's samples as well where OOD_DATA names them. Prints each figure with its
target and writes results/benchmarks/data.json.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402

from workflow_scripts.data.archives import lmdb_store, packing  # noqa: E402
from workflow_scripts.data.archives.collection import Collection, collect  # noqa: E402
from workflow_scripts.data.archives.lmdb_store import Archive  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the images")
    parser.add_argument("--repeat", type=int, default=5, help="runs of each, alternating (default: %(default)s)")
    args = parser.parse_args()
    share = 10 if args.quick else 1
    figures = []
    with tempfile.TemporaryDirectory(prefix="data_benchmark") as name:
        folder = Path(name)
        for count, size in ((4000 // share, 110_000), (20_000 // share, 2_500)):
            figures.append(build(folder, count, size, args.repeat))
        for what, source, count in sources(folder, share):
            figures += reading(folder, what, source, count, args.repeat)
        figures.append(device_loader(50_000 // share, args.repeat))
        figures += memory(folder, 2_500)  # 290 MB: more than is mapped at a time, which counts as memory
    report = {"hardware": hardware(), "figures": figures}
    out = ROOT / "results" / "benchmarks" / "data.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"{report['hardware']}\nwritten: {out.relative_to(ROOT)}")


def hardware() -> str:
    """Processor, cores, packages."""
    import torch
    names = [line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
             if line.startswith("model name")] if Path("/proc/cpuinfo").exists() else [platform.processor()]
    return f"{names[0]}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {torch.__version__}"


def figure(name: str, target: float, ours: list[float], theirs: list[float], unit: str, n: int, **more: object) -> dict:
    """A ratio of medians with its target; printed."""
    ratio = statistics.median(ours) / statistics.median(theirs)
    reached = ratio >= target
    print(f"{name:72s} {statistics.median(ours):9,.0f} against {statistics.median(theirs):7,.0f} {unit:13s} ratio "
          f"{ratio:5.2f}  target {target:4.1f}  {'reached' if reached else 'NOT REACHED'}", flush=True)
    return {"name": name, "ratio": ratio, "target": target, "reached": reached, "unit": unit, "n": n,
            "repeats": len(ours), "ours": ours, "theirs": theirs, **more}


# ---- building the archive --------------------------------------------------------------------------------------------

def files_of(folder: Path, count: int, mean: int) -> Collection:
    """Files that begin and end as JPEG images do, with incompressible content, in 20 class folders."""
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, 4_000_000, dtype=np.uint8).tobytes()
    for i in range(count):
        path = folder / f"n{i % 20:02d}" / f"{i:06d}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        at, size = int(random.integers(0, 2_000_000)), int(mean * random.uniform(0.5, 1.5))
        path.write_bytes(b"\xff\xd8\xff" + noise[at:at + size] + b"\xff\xd9")
    return collection_of(folder)


def collection_of(folder: Path) -> Collection:
    options = SimpleNamespace(files=str(folder), under="", labels="folders", devkit=(), annotations="", only="")
    return collect(options, None)


def _copy(names: list[str], source: str, target: str) -> None:
    for name in names:
        shutil.copyfile(f"{source}/{name}", f"{target}/{name}")


def copying(collection: Collection, target: Path, processes: int) -> float:
    """Seconds to copy all files with so many processes."""
    shutil.rmtree(target, ignore_errors=True)
    for name in collection.classes:
        (target / name).mkdir(parents=True)
    jobs = [get_context("fork").Process(target=_copy, args=(collection.names[k::processes], str(collection.paths[0]),
                                                            str(target))) for k in range(processes)]
    started = time.perf_counter()
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    return time.perf_counter() - started


def build(folder: Path, count: int, size: int, repeat: int) -> dict:
    """Building (a writer and a worker) against copying with two processes; neither waits for the disk."""
    collection = files_of(folder / f"files{size}", count, size)
    total = float(collection.size.sum()) / 1e6
    flush, os.fsync = os.fsync, lambda descriptor: None
    try:
        ours, theirs, single = [], [], []
        for _ in range(repeat):
            theirs.append(total / copying(collection, folder / "copy", 2))
            started = time.perf_counter()
            packing.pack(collection, folder / "built.lmdb", {}, workers=1)
            ours.append(total / (time.perf_counter() - started))
            (folder / "built.lmdb").unlink()
            single.append(total / copying(collection, folder / "copy", 1))
    finally:
        os.fsync = flush
        shutil.rmtree(folder / "copy", ignore_errors=True)
    return figure(f"LMDB build / copy with two processes, {count:,} files of {size / 1000:g} KB", 0.8, ours, theirs,
                  "MB/s", count, copy_with_one_process=single)


# ---- reading ---------------------------------------------------------------------------------------------------------

def sources(folder: Path, share: int) -> list[tuple[str, Path, int]]:
    """(what, class folders, images read): generated ones, and Tiny ImageNet's sample where it is."""
    random = np.random.default_rng(1)
    made = []
    for what, width, height, count in (("64x64", 64, 64, 4000 // share), ("500x375", 500, 375, 2000 // share)):
        target = folder / what
        for i in range(count):
            small = random.integers(0, 256, (height // 2, width // 2, 3), dtype=np.uint8)
            path = target / f"c{i % 10}" / f"{i:05d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).save(path, quality=85)
        made.append((f"generated {what}", target, min(count, 4000 if width == 64 else 500)))
    archive = Path(os.environ.get("OOD_DATA", "")) / "tiny_imagenet/tiny-imagenet-200_train_subset.tar"
    if archive.is_file():
        from workflow_scripts.data.archives.unpack import extract
        extract(archive, folder / "real")
        made.append(("Tiny ImageNet", folder / "real/tiny-imagenet-200/train", 5000 // share))
    return made


def reading(folder: Path, what: str, source: Path, count: int, repeat: int) -> list[dict]:
    """Images in random order from an archive against torchvision's ImageFolder, the same decoder in both.

    Warm: all in the system's memory, CPU seconds. Cold: dropped from it before each pass, seconds. The bound is what
    reading for nothing would reach: the decoder alone on bytes that the process has already.
    """
    import torch
    from torchvision.datasets import ImageFolder
    from torchvision.io import ImageReadMode, decode_image, read_file

    from workflow_scripts.data.images.rows import _BLOCKS, decoded

    torch.set_num_threads(1)
    collection = collection_of(source)
    path = folder / f"{source.name}.lmdb"
    packing.pack(collection, path, {}, workers=0)
    by_pil = ImageFolder(str(source))
    by_torchvision = ImageFolder(str(source), loader=lambda name: decode_image(read_file(name), ImageReadMode.RGB))
    order = np.random.default_rng(2).permutation(len(collection))[:count].tolist()

    def pil(archive: Archive) -> None:
        decoded(archive, order[0])
        Image.core.set_blocks_max(_BLOCKS)  # ours; ImageFolder runs with Pillow's own
        for i in order:
            decoded(archive, i)

    def torchvision(archive: Archive) -> None:
        for i in order:
            decode_image(torch.frombuffer(bytearray(archive.read(i)), dtype=torch.uint8), ImageReadMode.RGB)

    def walk(images: ImageFolder) -> None:
        Image.core.set_blocks_max(0)
        for i in order:
            images[i]

    whole = Archive(path)
    held = SimpleNamespace(read={i: whole.read(i) for i in order}.get, path=path, names=whole.names)
    found = []
    for decoder, ours, theirs in (("PIL", pil, by_pil), ("torchvision.io", torchvision, by_torchvision)):
        *rates, bound = alternately(lambda ours=ours: ours(Archive(path)), lambda theirs=theirs: walk(theirs),
                                    lambda ours=ours: ours(held), count=count, repeat=repeat, clock=time.process_time)
        found.append(figure(f"LMDB / ImageFolder, {what}, {decoder}, warm", 1.2, *rates, "images/CPU-s", count,
                            bound=statistics.median(bound) / statistics.median(rates[1])))
        print(f"{'':72s} bound: the decoder alone / ImageFolder {found[-1]['bound']:.2f}")
    if "500" in what:
        names = [path, *(name for name, _ in by_pil.samples)]
        rates = alternately(lambda: pil(Archive(path)), lambda: walk(by_pil), count=count, repeat=repeat,
                            clock=time.perf_counter, before=lambda: forget(names))
        found.append(figure(f"LMDB / ImageFolder, {what}, PIL, cold", 1.2, *rates, "images/s", count))
    return found


def forget(names: list) -> None:
    """Drop files from the system's memory."""
    for name in list(lmdb_store._OPEN):
        lmdb_store._OPEN.pop(name).close()  # what is mapped is kept
    os.sync()
    for name in names:
        descriptor = os.open(name, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def alternately(*functions: Callable[[], None], count: int, repeat: int, clock: Callable[[], float],
                before: Callable[[], None] = lambda: None) -> list[list[float]]:
    """Items per second of each by a clock, run in turns after one turn that does not count."""
    rates: list[list[float]] = [[] for _ in functions]
    for turn in range(repeat + 1):
        for function, found in zip(functions, rates, strict=True):
            before()
            started = clock()
            function()
            if turn:
                found.append(count / (clock() - started))
    return rates


# ---- the loader of small images --------------------------------------------------------------------------------------

def device_loader(count: int, repeat: int) -> dict:
    """An epoch of crop, flip and normalise in batches of 128 on one CPU thread."""
    import torch
    from torchvision import datasets, transforms

    from workflow_scripts.core.changes import HorizontalFlip, MeanStd, RandomCrop
    from workflow_scripts.data.images.augment import augment, normalise
    from workflow_scripts.data.images.randomness import permutation

    torch.set_num_threads(1)
    pixels = np.random.default_rng(3).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    how = MeanStd(mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010))
    theirs_set = datasets.CIFAR10.__new__(datasets.CIFAR10)  # its own __getitem__, without its files
    theirs_set.data, theirs_set.targets, theirs_set.target_transform = pixels, [0] * count, None
    theirs_set.transform = transforms.Compose([transforms.RandomCrop(32, 4), transforms.RandomHorizontalFlip(),
                                               transforms.ToTensor(), transforms.Normalize(how.mean, how.std)])
    some = min(count, 10_000)
    loader = torch.utils.data.DataLoader(torch.utils.data.Subset(theirs_set, range(some)), 128, shuffle=True)
    images, labels = torch.from_numpy(pixels), torch.zeros(count, dtype=torch.int64)
    steps = [RandomCrop(random_crop=4), HorizontalFlip(horizontal_flip=0.5)]

    def ours() -> None:
        order = permutation(0, 0, count)
        for start in range(0, count, 128):
            index = order[start:start + 128]
            normalise(augment(images[index], steps, 0, 0, index), how)
            labels[index]

    def theirs() -> None:
        for _ in loader:
            pass

    rates, reference = alternately(ours, theirs, count=count, repeat=repeat, clock=time.process_time)
    reference = [rate * some / count for rate in reference]
    return figure("32x32 loader / torchvision CIFAR10 + DataLoader", 10, rates, reference, "images/CPU-s", count)


# ---- memory ----------------------------------------------------------------------------------------------------------

_PEAK = """
import json, resource, sys
from pathlib import Path
from types import SimpleNamespace
sys.path.insert(0, sys.argv[1])
what, source, out = sys.argv[2], sys.argv[3], Path(sys.argv[4])
if __name__ == "__main__":
    if what == "pack":
        from workflow_scripts.data.archives.collection import collect
        from workflow_scripts.data.archives.packing import pack
        options = SimpleNamespace(files=source, under="", labels="folders", devkit=(), annotations="", only="")
        pack(collect(options, None), out, {}, workers=1)
    else:
        from workflow_scripts.stages.prepare_dataset import PrepareDataset, prepare
        prepare(PrepareDataset.of(dataset="x", split="train", reader="lmdb_images", options={"files": source},
                                  classes=0, geometry="crop32", limit_per_class=None, sample=None, count=None, raw=[]),
                out, None)
    status = Path("/proc/self/status").read_text()  # getrusage would tell the parent's, from before this program began
    own = int(status.split("VmHWM:")[1].split()[0])
    print(json.dumps([own / 1024, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024]))
"""


def memory(folder: Path, count: int) -> list[dict]:
    """Peak memory of packing and of preparing a store, for a set and for one four times as large."""
    script = folder / "peak.py"
    script.write_text(_PEAK)
    figures = []
    peaks: dict[str, list[list[float]]] = {"pack": [], "prepare": []}
    for times in (1, 4):
        source, archive = folder / f"pictures{times}", folder / f"pictures{times}.lmdb"
        picture = io.BytesIO()
        Image.fromarray(np.random.default_rng(4).integers(0, 256, (375, 500, 3), dtype=np.uint8)).save(picture, "JPEG")
        for i in range(times * count):
            path = source / f"c{i % 10}" / f"{i:05d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture.getvalue())
        for what, read, out in (("pack", source, archive), ("prepare", archive, folder / "x.h5")):
            done = subprocess.run([sys.executable, script, ROOT, what, read, out], capture_output=True, text=True,
                                  check=True)
            peaks[what].append(json.loads(done.stdout))
        shutil.rmtree(source)
    for what, (small, large) in peaks.items():
        bounded = large[0] < small[0] * 1.25
        print(f"peak memory of {what}: {small[0]:.0f} MB for {count:,} images of {len(picture.getvalue()) / 1000:.0f} "
              f"KB, {large[0]:.0f} MB for {4 * count:,}"
              f"{f' (a worker: {large[1]:.0f} MB)' if what == 'pack' else ''}  "
              f"{'bounded' if bounded else 'NOT BOUNDED'}", flush=True)
        figures.append({"name": f"peak memory of {what}", "unit": "MB", "n": [count, 4 * count], "reached": bounded,
                        "main": [small[0], large[0]], "worker": [small[1], large[1]]})
    return figures


if __name__ == "__main__":
    main()
