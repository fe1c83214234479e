"""EfficientNetV2 on the command line: flags become a configuration, and one mode runs with it.

Example:
    python main.py --mode=train --dataset_cfg=folder --data_dir=FOLDER --model_dir=RUN
"""

from __future__ import annotations

import dataclasses
import importlib.util
import logging as standard_logging
import os
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any, Callable, Literal

import rich.console
from absl import app, flags, logging

import effnetv2_keras.environment  # noqa: F401  before anything that imports TensorFlow
import hparams
from effnetv2_keras.config import Config
from effnetv2_keras.config.overrides import nearest, parse_overrides
from effnetv2_keras.errors import ConfigError, Interrupted, TrainingDiverged, UsageError, WorkerLost

_MODE = flags.DEFINE_string(
    "mode",
    "train",
    "train (or traineval), eval, predict, export, benchmark, report, plan, preview, summary, search, scale or "
    "data_service.",
)
_MODEL_NAME = flags.DEFINE_string(
    "model_name",
    "efficientnetv2-b0",
    "efficientnetv2-b0 ... -xl, efficientnet-b0 ... -l2, PATH.json, keras:NAME or keras:package.module:function.",
)
_DATASET_CFG = flags.DEFINE_string("dataset_cfg", "folder", "A recipe of hparams/, in any case.")
_HPARAM_STR = flags.DEFINE_string("hparam_str", "", "Overrides: 'a.b=1,c.d=x|y', or the path of a YAML file.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder of the images, or of TensorFlow Datasets.")
_MODEL_DIR = flags.DEFINE_string("model_dir", None, "Folder of the run.")
_STRATEGY = flags.DEFINE_string("strategy", "auto", "auto, cpu, mirrored, tpu or multiworker.")
_TPU = flags.DEFINE_string("tpu", "", "Name or address of the TPU; local: this host's.")
_TPU_ZONE = flags.DEFINE_string("tpu_zone", "", "Google Cloud zone of the TPU. Empty: the environment's.")
_GCP_PROJECT = flags.DEFINE_string("gcp_project", "", "Google Cloud project of the TPU. Empty: the environment's.")
_USE_TPU = flags.DEFINE_bool("use_tpu", False, "The same as --strategy=tpu.")
_WORKERS = flags.DEFINE_list("workers", [], "multiworker: all workers, host:port,... Empty: TF_CONFIG names them.")
_WORKER_INDEX = flags.DEFINE_integer("worker_index", 0, "multiworker: this one's place in --workers.", lower_bound=0)
_REJOIN = flags.DEFINE_bool("rejoin", True, "multiworker: when a worker is lost, start again and wait for it.")
_WEIGHTS = flags.DEFINE_enum("weights", "best", ["best", "latest"], "Of a run: which checkpoint.")
_USE_EMA = flags.DEFINE_bool("use_ema", True, "Of a run: the moving average of the weights, not the raw ones.")
_EXPORT_DIR = flags.DEFINE_string("export_dir", None, "export: folder to make. None: one in MODEL_DIR.")
_OUTPUT_DIR = flags.DEFINE_string(
    "output_dir", None, "eval, scale: folder for what they write. None: the run's, or this."
)
_QUANTIZE = flags.DEFINE_enum(
    "quantize", "none", ["none", "float16", "dynamic", "int8"], "As tflite: types of weights and activations."
)
_IMAGE_SIZE = flags.DEFINE_integer("image_size", None, "export, benchmark: side of the images. None: as evaluated.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "export, scale: replace what is in the folder.")
_PHI = flags.DEFINE_list("phi", [], "scale: V1's compound coefficients, as 1,2,3. Empty: as from S to M and to L.")
_IMAGES = flags.DEFINE_multi_string("images", [], "predict: a file or folder; may be repeated, or follow the flags.")
_TOP_K = flags.DEFINE_integer("top_k", 5, "predict: classes per image.", lower_bound=1)
_FORMAT = flags.DEFINE_string(
    "format",
    None,
    "predict: table or json. export: savedmodel, keras, tflite or onnx; benchmark: several of these, separated by "
    "commas. None: the first.",
)
_BATCH_SIZES = flags.DEFINE_list("batch_sizes", ["1", "8", "32"], "benchmark: images per call.")
_PREVIEW_FILE = flags.DEFINE_string("preview_file", "preview.png", "preview: the PNG to write.")
_PORT = flags.DEFINE_integer(
    "port", 5050, "data_service: the first of twice --service_workers ports in a row; 0: any.", 0, 65535
)
_SERVICE_WORKERS = flags.DEFINE_integer("service_workers", 1, "data_service: how many to start.", lower_bound=1)
_SERVICE_HOST = flags.DEFINE_string(
    "service_host", "localhost", "data_service: this machine's name for those that train."
)

_STARTED, _LONG_LIFE = time.monotonic(), 600.0
_REJOINS, _MOST_REJOINS = "EFFNETV2_KERAS_REJOINS", 5
"""A worker that starts again after each loss counts how often it did so within ten minutes of its start."""

EXIT_INTERRUPTED = 75
"""Exit status of a run that a signal ended after saving: the same command goes on with it (EX_TEMPFAIL)."""


def _config() -> Config:
    """Recipe (recipe=original in --hparam_str for the reference code's), then --data_dir, then --hparam_str."""
    changes = parse_overrides(_HPARAM_STR.value)
    config = hparams.load(_DATASET_CFG.value, _MODEL_NAME.value, recipe=str(changes.pop("recipe", "paper")))
    return config.override(_data_changes()).override(changes)


def _required(flag: flags.FlagHolder[str | None], what_for: str) -> str:
    if not flag.value:
        raise ConfigError(f"--mode={_MODE.value} needs --{flag.name}, {what_for}.")
    return flag.value


def _which() -> Literal["best", "latest"]:
    return "best" if _WEIGHTS.value == "best" else "latest"


def _model_dir() -> str:
    return _required(_MODEL_DIR, "the folder of the run")


def _format(allowed: Iterable[str]) -> str:
    """--format, or the first of those that the mode allows."""
    allowed = list(allowed)
    chosen = _FORMAT.value or allowed[0]
    if chosen not in allowed:
        raise ConfigError(f"--mode={_MODE.value} knows no --format={chosen}; use one of {', '.join(allowed)}.")
    return chosen


def _data_changes() -> dict[str, Any]:
    return {"data.data_dir": _DATA_DIR.value} if _DATA_DIR.value else {}


def _make_strategy() -> Any:
    from effnetv2_keras.distribution.strategy import Devices, make_strategy

    devices = Devices(_TPU.value, _TPU_ZONE.value, _GCP_PROJECT.value, tuple(_WORKERS.value), _WORKER_INDEX.value)
    return make_strategy("tpu" if _USE_TPU.value else _STRATEGY.value, devices)


def _train(console: rich.console.Console, _: Sequence[str]) -> None:
    from effnetv2_keras.training import loop

    loop.train(_config(), _model_dir(), strategy=_make_strategy(), console=console)


def _eval(console: rich.console.Console, _: Sequence[str]) -> None:
    from effnetv2_keras.data.splits import open_splits
    from effnetv2_keras.modes import evaluate

    strategy, model_dir, splits = _make_strategy(), _MODEL_DIR.value, None
    if model_dir is None:
        splits = open_splits(_config().data)
        subject = evaluate.load_file(_config(), strategy, num_classes=len(splits.evaluation.class_names))
    elif evaluate.is_export(model_dir):
        subject = evaluate.load_export(model_dir, strategy, _config())
    else:
        changes = {**parse_overrides(_HPARAM_STR.value), **_data_changes()}
        subject = evaluate.load_run(model_dir, strategy, which=_which(), changes=changes)
    folder = _OUTPUT_DIR.value or (model_dir if subject.step is not None else ".")
    evaluate.evaluate(subject, strategy, splits=splits, folder=folder or ".", console=console)


def _predict(console: rich.console.Console, arguments: Sequence[str]) -> None:
    from effnetv2_keras.modes import predict

    output = _format(["table", "json"])
    predictor = predict.load_predictor(_model_dir(), which=_which(), use_ema=_USE_EMA.value)
    predictions = predict.predict(predictor, [*_IMAGES.value, *arguments], top_k=_TOP_K.value)
    if output == "json":
        print(predict.to_json(predictions))
    else:
        predict.format_table(predictions, console)


def _export(console: rich.console.Console, _: Sequence[str]) -> None:
    from effnetv2_keras import export
    from effnetv2_keras.runs.checkpoints import load_trained

    logging.set_verbosity(logging.WARNING)  # TensorFlow tells at length that it writes a SavedModel
    format_name = _format(export.EXPORTERS)
    trained = load_trained(_model_dir(), which=_which(), use_ema=_USE_EMA.value)
    console.print(f"Exporting {trained.spec.name} as {format_name}, then checking it.", highlight=False)
    report = export.export_model(
        dataclasses.replace(trained, config=trained.config.override(_data_changes())),
        _EXPORT_DIR.value or export.default_path(_model_dir(), format_name, _QUANTIZE.value),
        format_name=format_name,
        quantize=_QUANTIZE.value,
        image_size=_IMAGE_SIZE.value,
        overwrite=_OVERWRITE.value,
    )
    console.print(report.describe(), highlight=False, soft_wrap=True)


def _benchmark(console: rich.console.Console, _: Sequence[str]) -> None:
    from effnetv2_keras.modes import benchmark
    from effnetv2_keras.runs.checkpoints import load_trained

    logging.set_verbosity(logging.WARNING)
    if not all(size.strip().isdecimal() for size in _BATCH_SIZES.value):
        raise ConfigError(f"--batch_sizes={','.join(_BATCH_SIZES.value)} must be whole numbers: --batch_sizes=1,8")
    if _MODEL_DIR.value:
        trained = load_trained(_MODEL_DIR.value, which=_which(), use_ema=_USE_EMA.value)
        trained = dataclasses.replace(trained, config=trained.config.override(_data_changes()))
    else:
        trained = benchmark.fresh(_config())
    result = benchmark.benchmark(
        trained,
        formats=(_FORMAT.value or "savedmodel").split(","),
        quantize=_QUANTIZE.value,
        batch_sizes=[int(size) for size in _BATCH_SIZES.value],
        image_size=_IMAGE_SIZE.value,
    )
    benchmark.print_benchmark(result, console)


def _report(console: rich.console.Console, _: Sequence[str]) -> None:
    from effnetv2_keras.reporting.html_report import write_report
    from effnetv2_keras.reporting.samples import samples_of_run
    from effnetv2_keras.runs.run_folder import RunFolder

    samples = samples_of_run(_model_dir(), which=_which(), use_ema=_USE_EMA.value, changes=_data_changes())
    path = write_report(RunFolder(_model_dir()), samples)
    console.print(f"Wrote {path}. {'' if samples.samples else samples.note}", highlight=False, soft_wrap=True)


def _plan(console: rich.console.Console, _: Sequence[str]) -> None:
    from effnetv2_keras.modes import plan

    plan.print_plan(_config(), console)


def _preview(console: rich.console.Console, _: Sequence[str]) -> None:
    from effnetv2_keras.modes import preview

    preview.write_preview(_config(), _PREVIEW_FILE.value)
    console.print(f"Wrote {_PREVIEW_FILE.value}.")


def _summary(console: rich.console.Console, _: Sequence[str]) -> None:
    from effnetv2_keras.modes import plan

    plan.print_summary(_config(), console)


def _search(console: rich.console.Console, _: Sequence[str]) -> None:
    from effnetv2_keras.search.search import search

    search(_config(), _model_dir(), strategy=_STRATEGY.value, console=console)


def _scale(_: rich.console.Console, __: Sequence[str]) -> None:
    from effnetv2_keras.modes import scale

    print(scale.write_family(_MODEL_NAME.value, _PHI.value, _OUTPUT_DIR.value or ".", overwrite=_OVERWRITE.value))


def _data_service(console: rich.console.Console, _: Sequence[str]) -> None:
    from effnetv2_keras.data.service import Services
    from effnetv2_keras.training.interruption import stop_on_signal

    with stop_on_signal() as stop:
        services = Services(_SERVICE_WORKERS.value, host=_SERVICE_HOST.value, port=_PORT.value)
        print(f"--hparam_str=data.service={'|'.join(services.addresses)}", flush=True)
        stop.wait()
        logging.info("%s: the data service ends.", stop.name)


MODES: dict[str, Callable[[rich.console.Console, Sequence[str]], None]] = {
    "train": _train,
    "traineval": _train,
    "eval": _eval,
    "predict": _predict,
    "export": _export,
    "benchmark": _benchmark,
    "report": _report,
    "plan": _plan,
    "preview": _preview,
    "summary": _summary,
    "search": _search,
    "scale": _scale,
    "data_service": _data_service,
}


_CHATTY = tuple(
    os.path.join(folder, "")
    for name in ("tensorflow", "matplotlib")
    if (package := importlib.util.find_spec(name))
    for folder in package.submodule_search_locations or ()
)


def _is_worth_telling(record: standard_logging.LogRecord) -> bool:
    """Whether a message warns, or is not one of those with which TensorFlow, say, comments on each checkpoint."""
    return record.levelno > standard_logging.INFO or not record.pathname.startswith(_CHATTY)


def main(argv: list[str]) -> None:
    """Runs one mode; errors that a person can mend are printed as one message, without a traceback."""
    mode = MODES.get(_MODE.value)
    if mode is None:
        sys.exit(
            f"Unknown --mode={_MODE.value}; did you mean {nearest(_MODE.value, MODES)!r}? Modes: {', '.join(MODES)}."
        )
    logging.get_absl_handler().addFilter(_is_worth_telling)
    try:
        # Not on a terminal, nothing is known of the width: enough for every table.
        mode(rich.console.Console(width=None if sys.stdout.isatty() else 140), argv[1:])
    except Interrupted as stop:
        logging.warning("%s", stop)
        sys.exit(EXIT_INTERRUPTED)
    except WorkerLost as loss:
        logging.warning("%s", loss)
        if not _REJOIN.value:
            sys.exit(EXIT_INTERRUPTED)
        rejoins = 1 + (0 if time.monotonic() - _STARTED > _LONG_LIFE else int(os.environ.get(_REJOINS, "0")))
        if rejoins > _MOST_REJOINS:
            sys.exit(
                f"Started again {_MOST_REJOINS} times in a row without getting far; see the other workers' messages."
            )
        os.environ[_REJOINS] = str(rejoins)
        logging.flush()
        os.execv(sys.executable, [sys.executable, *sys.argv])  # a process can join a cluster only once
    except (UsageError, TrainingDiverged) as error:
        sys.exit(f"{type(error).__name__}: {error}")


def run() -> None:
    """Parses the flags of the command line and runs ``main``."""
    app.run(main)
