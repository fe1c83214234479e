"""V1 and V2 (tables 10 and 11 and figure 5 of the paper): B0 of both families at half width and depth.

Both have the same training: 96 px throughout, and progressive learning with adaptive regularization.

    PYTHONPATH=. python benchmarks/claims/families.py --photos DIR --cores 0 1
    PYTHONPATH=. python benchmarks/claims/families.py --report

``progressive.py`` says what ``DIR`` holds. The runs of V2 are those of ``progressive.py``, if it has been run.
"""

from __future__ import annotations

import dataclasses

from benchmarks.claims import figures, harness
from effnetv2_keras.architecture.variants import get_spec

_V1 = dataclasses.replace(
    get_spec("efficientnet-b0"),
    name="efficientnet-b0-half",
    width=0.5,
    depth=0.5,
    train_size=harness.LAST,
    eval_size=harness.LAST,
)
_V2_SETTINGS = (harness.FIXED_SIZE, harness.ADAPTIVE)
_V1_SETTINGS = tuple(dataclasses.replace(one, name=f"v1-{one.name}", network=_V1) for one in _V2_SETTINGS)
SETTINGS = (*_V2_SETTINGS, *_V1_SETTINGS)


def main() -> None:
    options = harness.make_parser("families", __doc__).parse_args()
    harness.run(options, SETTINGS)
    pairs = [{"V1": v1.name, "V2": v2.name} for v1, v2 in zip(_V1_SETTINGS, _V2_SETTINGS)]
    figures.report(options, dict(zip(("96 px", "growing images and regularization"), pairs)))


if __name__ == "__main__":
    main()
