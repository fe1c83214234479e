"""``--mode=report``: writes ``report.html`` for a finished or unfinished run."""

from __future__ import annotations

from effnetv2_keras.modes.invocation import Invocation
from effnetv2_keras.modes.settings import NOTHING
from effnetv2_keras.reporting.html_report import write_report
from effnetv2_keras.reporting.samples import samples_of_run
from effnetv2_keras.runs.run_folder import RunFolder


def run(invocation: Invocation) -> None:
    """Writes the report into the folder of the run; without the data, it has a note instead of sample images."""
    options = invocation.options
    invocation.changes(NOTHING)
    samples = samples_of_run(
        invocation.model_dir(), which=options.weights, use_ema=options.use_ema, changes=invocation.data_changes()
    )
    path = write_report(RunFolder(invocation.model_dir()), samples)
    invocation.say(f"Wrote {path}. {'' if samples.samples else samples.note}")
