"""RandAugment by image size (table 5 of the paper): magnitudes 5, 10 and 15 at 48, 72 and 96 px.

Images have one size throughout, which is also that of the evaluation.

    PYTHONPATH=. python benchmarks/claims/randaugment.py --photos DIR --cores 0 1
    PYTHONPATH=. python benchmarks/claims/randaugment.py --report

``progressive.py`` says what ``DIR`` holds.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

import matplotlib.figure

from benchmarks.claims import figures, harness
from benchmarks.claims.harness import Setting

_MAGNITUDES, _SIZES = (5, 10, 15), (48, 72, 96)


def _setting(magnitude: int, size: int) -> Setting:
    changes = {
        **harness.FIXED,
        "progressive.image_size.start": size,
        "progressive.image_size.end": size,
        "progressive.randaug_magnitude.start": magnitude,
        "progressive.randaug_magnitude.end": magnitude,
        "eval.isize": size,
    }
    return Setting(f"randaugment-{magnitude}-{size}-px", changes)


SETTINGS = [_setting(magnitude, size) for size in _SIZES for magnitude in _MAGNITUDES]


def _draw(found: Mapping[str, figures.Runs], path: Any) -> None:
    """Writes a PNG with the accuracy by magnitude for each size; bars are standard deviations over the seeds."""
    figure = matplotlib.figure.Figure(figsize=(9, 3.2), layout="constrained")
    for axes, size in zip(figure.subplots(1, len(_SIZES)), _SIZES):
        runs = {magnitude: found.get(_setting(magnitude, size).name, {}) for magnitude in _MAGNITUDES}
        values = {
            magnitude: [figures.percent(run, "top1_ema") for run in each.values()]
            for magnitude, each in runs.items()
            if each
        }
        means = [statistics.fmean(each) for each in values.values()]
        deviations = [statistics.stdev(each) if len(each) > 1 else 0.0 for each in values.values()]
        axes.errorbar(list(values), means, yerr=deviations, fmt="o-", capsize=3, markersize=4)
        axes.set_title(f"{size} px", fontsize=9)
        axes.set_xticks(_MAGNITUDES)
        figures.label(axes, "RandAugment magnitude", "top-1 of the averaged weights, %")
    figure.savefig(path, dpi=80)


def main() -> None:
    options = harness.make_parser("randaugment", __doc__).parse_args()
    harness.run(options, SETTINGS)
    by_size = {
        f"{size} px": {f"magnitude {magnitude}": _setting(magnitude, size).name for magnitude in _MAGNITUDES}
        for size in _SIZES
    }
    figures.report(options, by_size, draw=_draw)


if __name__ == "__main__":
    main()
