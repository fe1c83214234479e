"""Progressive learning: images of one size, growing images, and growing images with growing regularization.

- ``fixed``: 96 px throughout.
- ``progressive``: 48, 64, 80 and 96 px, with the regularization of ``fixed`` throughout.
- ``progressive-adaptive``: the same sizes; RandAugment and dropout are weaker in the earlier stages.
- ``random-adaptive``: 12 sizes at random, with the regularization that belongs to each (appendix of the paper).
- ``...-time``: the same with as many more epochs as fit into the processor time of ``fixed``.

    PYTHONPATH=. python benchmarks/claims/progressive.py --photos DIR --cores 0 1
    PYTHONPATH=. python benchmarks/claims/progressive.py --report

``DIR`` holds ``train/CLASS``, ``validation/CLASS`` and ``test/CLASS``. Validation and test are evaluated together. No
setting was chosen by these runs: the table shows the last evaluation of each, not the best.
"""

from __future__ import annotations

import dataclasses

from benchmarks.claims import figures, harness
from benchmarks.claims.harness import Setting

_RANDOM = {"progressive.order": "random", "progressive.stages": 12}
_EQUAL_EPOCHS = (
    harness.FIXED_SIZE,
    Setting("progressive", constant=True),
    harness.ADAPTIVE,
    Setting("random-adaptive", _RANDOM),
)
_EQUAL_TIME = tuple(
    dataclasses.replace(setting, name=f"{setting.name}-time", more_of=setting.name) for setting in _EQUAL_EPOCHS[1:]
)
SETTINGS = (*_EQUAL_EPOCHS, *_EQUAL_TIME)


def main() -> None:
    options = harness.make_parser("progressive", __doc__).parse_args()
    harness.run(options, SETTINGS)
    panels = {"equal epochs": _EQUAL_EPOCHS, "equal processor time": (harness.FIXED_SIZE, *_EQUAL_TIME)}
    figures.report(
        options,
        {title: [setting.name for setting in panel] for title, panel in panels.items()},
        {
            "adaptive regularization": ["progressive", "progressive-adaptive"],
            "adaptive regularization, equal processor time": ["progressive-time", "progressive-adaptive-time"],
            "rising sizes": ["random-adaptive", "progressive-adaptive"],
            "rising sizes, equal processor time": ["random-adaptive-time", "progressive-adaptive-time"],
        },
    )


if __name__ == "__main__":
    main()
