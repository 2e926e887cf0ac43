"""Cost of a mask on the CPU: greedy DPP, exact k-DPP and random, against NumPy and DPPy, and how it grows.

``python benchmarks/masks.py [--out benchmarks/results/masks_cpu.csv] [--quick]`` writes the CSV and, beside
it, a plot. Rivals are timed in turns with ours in one run: the published fast greedy algorithm as a NumPy
float64 loop over images (Chen, Zhang and Zhou, 2018), and DPPy's exact k-DPP sampler, a fresh one for each
image. ``ratio`` is the median time over that of the rival (below 1 is faster), ``cpu_ratio`` the same of
processor time, which other work on the machine disturbs less. The comparison is made on one thread and on
all; growth is measured on one.
"""

import argparse
import math
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from dppy.finite_dpps import FiniteDPP
from threadpoolctl import threadpool_limits
from torch import Tensor

from dppmask.dpp import gaussian_kernel, greedy_map, sample_kdpp
from dppmask.rng import fold_in
from harness import Timing, machine, measure_in_turns, write_rows

BATCH, N, K, D = 64, 196, 49, 384  # ViT-S/16 at 224 px, three quarters hidden
SCALING_BATCH = 16
LABELS = {
    "noise_sort": "random (sort of noise)",
    "greedy": "greedy DPP, kernel given",
    "kernel_and_greedy": "greedy DPP with its kernel",
    "kdpp": "exact k-DPP, kernel given",
}


def patch_features(batch: int, num_patches: int) -> Tensor:
    """Float32 ``[batch, N, D]``: normal numbers around a direction that the patches of an image share."""
    generator = fold_in(0, batch, num_patches)
    shared = torch.randn(batch, 1, D, generator=generator)
    return shared + torch.randn(batch, num_patches, D, generator=generator)


def noise_sort(batch: int, num_patches: int, k: int, generator: torch.Generator) -> Tensor:
    return torch.rand(batch, num_patches, generator=generator).argsort(1)[:, :k]


def numpy_kernel(features: np.ndarray) -> np.ndarray:
    """The Gaussian kernel of one image in float64."""
    rows = features.astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return np.exp(rows @ rows.T - 1)


def numpy_greedy(kernel: np.ndarray, k: int, epsilon: float = 1e-10) -> list[int]:
    """The published algorithm for one image, with preallocated memory."""
    factor = np.zeros((k, len(kernel)))
    gain = np.diag(kernel).copy()
    best = int(np.argmax(gain))
    items = [best]
    for step in range(k - 1):
        row = (kernel[best] - factor[:step, best] @ factor[:step]) / math.sqrt(gain[best])
        factor[step] = row
        gain -= np.square(row)
        gain[best] = -np.inf
        best = int(np.argmax(gain))
        if gain[best] < epsilon:
            break
        items.append(best)
    return items


def dppy_sample(kernel: np.ndarray, k: int, random_state: np.random.RandomState) -> list[int]:
    return FiniteDPP("likelihood", L=kernel).sample_exact_k_dpp(k, random_state=random_state)


def ours(batch: int, num_patches: int, k: int) -> dict[str, Callable[[], object]]:
    """Our masks of one shape, by the names of ``LABELS``."""
    features = patch_features(batch, num_patches)
    kernel = gaussian_kernel(features)
    generator = fold_in(1)
    return {
        "noise_sort": partial(noise_sort, batch, num_patches, k, generator),
        "greedy": partial(greedy_map, kernel, k),
        "kernel_and_greedy": lambda: greedy_map(gaussian_kernel(features), k),
        "kdpp": partial(sample_kdpp, kernel, k, generator=generator),
    }


def rivals() -> dict[str, Callable[[], object]]:
    """Loops over images, on the kernels or features that ours get."""
    features = patch_features(BATCH, N)
    kernels = gaussian_kernel(features).double().numpy()
    images = features.numpy()
    random_state = np.random.RandomState(0)
    return {
        "greedy": lambda: [numpy_greedy(kernel, K) for kernel in kernels],
        "kernel_and_greedy": lambda: [numpy_greedy(numpy_kernel(image), K) for image in images],
        "kdpp": lambda: [dppy_sample(kernel, K, random_state) for kernel in kernels],
    }


def check_equal_picks() -> None:
    """Correctness first: in float64 ours and the published algorithm pick the same patches."""
    kernels = gaussian_kernel(patch_features(4, N).double())
    expected = [numpy_greedy(kernel, K) for kernel in kernels.numpy()]
    if greedy_map(kernels, K).items.tolist() != expected:
        raise SystemExit(
            "greedy_map and the published algorithm pick different patches; nothing was measured"
        )


def comparison_rows(repeats: int) -> list[dict[str, object]]:
    """Ours against the rivals, batch 64 of 196 patches, 49 visible."""
    rows = []
    theirs = rivals()
    for name, mine in ours(BATCH, N, K).items():
        functions = {"dppmask": mine}
        if name in theirs:
            functions["dppy" if name == "kdpp" else "numpy"] = theirs[name]
        timings = measure_in_turns(functions, repeats=repeats, warmup=1)
        for implementation, timing in timings.items():
            row = row_of("comparison", name, (BATCH, N, K), timing, repeats)
            rival = list(timings.values())[-1]
            row["implementation"] = implementation
            row["ratio"] = round(timing.median / rival.median, 3)
            row["cpu_ratio"] = round(timing.cpu / rival.cpu, 3)
            rows.append(row)
            print(
                f"{implementation:>9} ratio {row['ratio']:.3f} cpu_ratio {row['cpu_ratio']:.3f}",
                file=sys.stderr,
            )
    return rows


def scaling_rows(repeats: int, *, sizes: dict[str, list[tuple[int, int, int]]]) -> list[dict[str, object]]:
    """Ours over (batch, N, K); ``sizes`` gives the shapes of each section."""
    rows = []
    for section, shapes in sizes.items():
        for shape in shapes:
            timings = measure_in_turns(ours(*shape), repeats=repeats, warmup=1)
            rows += [row_of(section, mask, shape, timing, repeats) for mask, timing in timings.items()]
    return rows


def row_of(
    section: str, mask: str, shape: tuple[int, int, int], timing: Timing, repeats: int
) -> dict[str, object]:
    batch, num_patches, k = shape
    print(f"{section:>10} {mask:>17} {shape!s:>15} {1e3 * timing.median:9.2f} ms", file=sys.stderr)
    return {
        "section": section,
        "mask": mask,
        "implementation": "dppmask",
        "batch": batch,
        "num_patches": num_patches,
        "num_keep": k,
        "feature_dim": D,
        "median_ms": round(1e3 * timing.median, 3),
        "low_ms": round(1e3 * timing.low, 3),
        "high_ms": round(1e3 * timing.high, 3),
        "cpu_ms": round(1e3 * timing.cpu, 3),
        "ratio": "",
        "cpu_ratio": "",
        "repeats": repeats,
    }


def draw(rows: list[dict[str, object]], path: Path) -> None:
    """Cost against patches, visible patches and batch, on logarithmic axes, with 20 % to 80 % bars."""
    panels = {
        "patches": ("num_patches", "patches N  (a quarter visible)"),
        "visible": ("num_keep", "visible patches K"),
        "batch": ("batch", "batch size"),
    }
    figure, axes = plt.subplots(1, 3, figsize=(13, 4.2), sharey=True, layout="constrained")
    for axis, (section, (column, label)) in zip(axes, panels.items(), strict=True):
        for mask, name in LABELS.items():
            line = [row for row in rows if row["section"] == section and row["mask"] == mask]
            sizes = np.array([row[column] for row in line], dtype=float)
            low, median, high = (
                np.array([row[key] for row in line]) for key in ("low_ms", "median_ms", "high_ms")
            )
            axis.errorbar(
                sizes, median, yerr=[median - low, high - median], marker="o", capsize=2, label=name
            )
        draw_guide(axis, section, line, column)
        axis.set(
            xscale="log",
            yscale="log",
            xlabel=label,
            xticks=sizes,
            xticklabels=[f"{size:g}" for size in sizes],
        )
        axis.minorticks_off()
        axis.grid(alpha=0.3)
        axis.set_title(title_of(line, section))
    axes[0].set_ylabel("milliseconds per batch of masks")
    axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=110)


def draw_guide(axis: plt.Axes, section: str, line: list[dict[str, object]], column: str) -> None:
    """The growth that is promised: linear in the batch, N K (K + D) in patches; grey and dashed."""
    promised = {
        "patches": (
            "∝ N K (K + D)",
            lambda row: row["num_patches"] * row["num_keep"] * (row["num_keep"] + D),
        ),
        "batch": ("∝ batch", lambda row: row["batch"]),
    }
    if section in promised:
        name, growth = promised[section]
        values = np.array([growth(row) for row in line], dtype=float)
        sizes, growth_line = [row[column] for row in line], values / values[0]
        axis.plot(sizes, growth_line, color="grey", ls="--", lw=1)
        axis.annotate(
            name, (sizes[1], growth_line[1]), (6, -12), textcoords="offset points", color="grey", fontsize=8
        )


def title_of(line: list[dict[str, object]], section: str) -> str:
    first = line[0]
    fixed = {"patches": ("batch",), "visible": ("batch", "num_patches"), "batch": ("num_patches", "num_keep")}
    names = {"batch": "batch", "num_patches": "N", "num_keep": "K"}
    return ", ".join(f"{names[key]} {first[key]}" for key in fixed[section])


def shapes(*, quick: bool) -> dict[str, list[tuple[int, int, int]]]:
    """(batch, N, K) of each scaling section."""
    patches = [49, 100, 196] if quick else [49, 100, 196, 400, 784]
    visible = [25, 49] if quick else [12, 25, 49, 98, 147]
    batches = [4, 16] if quick else [4, 16, 64, 256]
    return {
        "patches": [(SCALING_BATCH, n, round(n / 4)) for n in patches],
        "visible": [(SCALING_BATCH, N, k) for k in visible],
        "batch": [(batch, N, K) for batch in batches],
    }


def main() -> None:
    default = Path(__file__).parent / "results" / "masks_cpu.csv"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=default, help="the CSV; the plot stands beside it")
    parser.add_argument(
        "--quick", action="store_true", help="few repeats and small shapes: to see that it runs"
    )
    options = parser.parse_args()
    repeats = 2 if options.quick else 15
    check_equal_picks()
    rows = []
    for threads in sorted({1, torch.get_num_threads()}):
        rows += on_threads(threads, partial(comparison_rows, repeats))
    rows += on_threads(1, partial(scaling_rows, repeats, sizes=shapes(quick=options.quick)))
    facts = machine("dppy")
    write_rows(options.out, [row | facts for row in rows])
    draw(rows, options.out.with_suffix(".png"))


def on_threads(threads: int, measurement: Callable[[], list[dict[str, object]]]) -> list[dict[str, object]]:
    """The rows measured while torch, NumPy and DPPy may use so many threads."""
    before = torch.get_num_threads()
    with threadpool_limits(threads):
        torch.set_num_threads(threads)
        rows = measurement()
        torch.set_num_threads(before)
    return [row | {"threads": threads} for row in rows]


if __name__ == "__main__":
    main()
