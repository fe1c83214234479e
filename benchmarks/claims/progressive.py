"""Progressive learning: images of one size, growing images, and growing images with growing regularization.

- ``fixed``: 96 px throughout.
- ``progressive``: 48, 64, 80 and 96 px, with the regularization of ``fixed`` throughout.
- ``progressive-adaptive``: the same sizes; RandAugment and dropout are weaker in the earlier stages.
- ``random-adaptive``: 12 sizes at random, with the regularization that belongs to each (appendix of the paper).
- ``fixed-time``: ``fixed`` with as many epochs as fit into the processor time of ``progressive-adaptive``.
- ``progressive-adaptive-time``: the reverse, so more epochs.

    PYTHONPATH=. python benchmarks/claims/progressive.py --photos DIR --cores 0 1
    PYTHONPATH=. python benchmarks/claims/progressive.py --report

``DIR`` holds ``train/CLASS``, ``validation/CLASS`` and ``test/CLASS``. Validation and test are evaluated together. No
setting was chosen by these runs: the table shows the last evaluation of each, not the best.
"""

from __future__ import annotations

from benchmarks.claims import figures, harness
from benchmarks.claims.harness import Setting

_RANDOM = {"progressive.order": "random", "progressive.stages": 12}
_EQUAL_EPOCHS = (
    harness.FIXED_SIZE,
    harness.ADAPTIVE,
    Setting("progressive", constant=True),
    Setting("random-adaptive", _RANDOM),
)
_EQUAL_TIME = Setting("fixed-time", harness.FIXED, like=harness.FIXED_SIZE.name, in_time_of=harness.ADAPTIVE.name)
_MORE_EPOCHS = Setting("progressive-adaptive-time", like=harness.ADAPTIVE.name, in_time_of=harness.FIXED_SIZE.name)
_GROWING = {
    "growing, with growing regularization": harness.ADAPTIVE.name,
    "growing, with constant regularization": "progressive",
    "random sizes": "random-adaptive",
}
SETTINGS = (*_EQUAL_EPOCHS, _EQUAL_TIME, _MORE_EPOCHS)


def main() -> None:
    options = harness.make_parser("progressive", __doc__).parse_args()
    harness.run(options, SETTINGS)
    figures.report(
        options,
        {
            "equal epochs": {"96 px": harness.FIXED_SIZE.name, **_GROWING},
            "the time of growing images": {"96 px": _EQUAL_TIME.name, **_GROWING},
            "the time of 96 px": {
                "96 px": harness.FIXED_SIZE.name,
                "growing, with growing regularization": _MORE_EPOCHS.name,
            },
        },
        {
            "adaptive regularization": ["progressive", "progressive-adaptive"],
            "rising sizes": ["random-adaptive", "progressive-adaptive"],
        },
    )


if __name__ == "__main__":
    main()
