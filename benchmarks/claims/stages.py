"""First image size and number of stages (table 14 of the paper), with adaptive regularization.

From 48 or 64 px to 96 px in 4, 8 or 16 stages.

    PYTHONPATH=. python benchmarks/claims/stages.py --photos DIR --cores 0 1
    PYTHONPATH=. python benchmarks/claims/stages.py --report

``progressive.py`` says what ``DIR`` holds. The runs from 48 px in 4 stages are its ``progressive-adaptive``.
"""

from __future__ import annotations

import itertools

from benchmarks.claims import figures, harness
from benchmarks.claims.harness import Setting

_FIRST_SIZES, _STAGES = (harness.FIRST, 64), (4, 8, 16)


def _setting(first: int, stages: int) -> Setting:
    if (first, stages) == (harness.FIRST, harness.STAGES):
        return harness.ADAPTIVE
    changes = {"progressive.image_size.start": first, "progressive.stages": stages}
    return Setting(f"from-{first}-px-{stages}-stages", changes)


SETTINGS = [_setting(*choice) for choice in itertools.product(_FIRST_SIZES, _STAGES)]


def main() -> None:
    options = harness.make_parser("stages", __doc__).parse_args()
    harness.run(options, SETTINGS)
    panels = {
        f"from {first} px": {f"{stages} stages": _setting(first, stages).name for stages in _STAGES}
        for first in _FIRST_SIZES
    }
    first_sizes = {
        f"first size, {stages} stages": [_setting(first, stages).name for first in _FIRST_SIZES] for stages in _STAGES
    }
    figures.report(options, panels, first_sizes)


if __name__ == "__main__":
    main()
