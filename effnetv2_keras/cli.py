"""The command line: flags become ``Options``, and one mode runs with them.

Example:
    python main.py --mode=train --dataset_cfg=folder --data_dir=FOLDER --model_dir=RUN
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import logging as standard_logging
import os
import sys
import textwrap
import typing

import rich.console
from absl import app, flags, logging

import effnetv2_keras.environment  # noqa: F401  before anything that imports TensorFlow
from effnetv2_keras import hparams
from effnetv2_keras.basics.activity import doing, shown
from effnetv2_keras.basics.ending import end_process
from effnetv2_keras.basics.packages import explained
from effnetv2_keras.config.overrides import nearest
from effnetv2_keras.config.reference_keys import check_flags
from effnetv2_keras.errors import Interrupted, TrainingDiverged, UsageError, WorkerLost
from effnetv2_keras.modes import options as options_lib
from effnetv2_keras.modes.invocation import Invocation
from effnetv2_keras.modes.options import Options, flag_table
from effnetv2_keras.training.interruption import EXIT_INTERRUPTED, answered


class Mode(typing.NamedTuple):
    """A value of ``--mode``.

    Attributes:
        module: has ``run(invocation)``; imported when the mode is chosen.
        help: what the mode does.
    """

    module: str
    help: str


MODES: dict[str, Mode] = {
    options_lib.TRAIN: Mode("modes.train", "trains a network, or resumes the run in --model_dir"),
    options_lib.EVAL: Mode("modes.evaluate", "evaluates a run, a SavedModel or a file of weights"),
    options_lib.PREDICT: Mode("modes.predict", "classifies image files and folders"),
    options_lib.EXPORT: Mode("modes.export", "writes a SavedModel, Keras, TensorFlow Lite or ONNX file"),
    options_lib.PLAN: Mode("modes.plan", "prints stages, steps, sizes and learning rates; trains nothing"),
    options_lib.PREVIEW: Mode("modes.preview", "draws training images of every stage into a PNG"),
    options_lib.SUMMARY: Mode("modes.summary", "prints the network's layers, parameters and FLOPs"),
    options_lib.REPORT: Mode("modes.report", "writes report.html for a run"),
    options_lib.BENCHMARK: Mode("modes.benchmark", "measures latency, images/s and memory of exported formats"),
    options_lib.SEARCH: Mode("search.search", "searches for networks that train fast"),
    options_lib.SCALE: Mode("modes.scale", "scales a network and writes the larger ones as JSON"),
    options_lib.DATA_SERVICE: Mode("modes.data_service", "makes training batches for other processes"),
}
_ALIASES = {"traineval": options_lib.TRAIN}


def _define_flags() -> None:
    """Defines an absl flag for every field of ``Options``."""
    defaults = Options()
    for name, (kind, flag) in flag_table().items():
        default = getattr(defaults, name)
        if kind is bool:
            flags.DEFINE_bool(name, default, flag.help)
        elif kind in (int, typing.Optional[int]):
            flags.DEFINE_integer(name, default, flag.help, flag.low, flag.high)
        elif typing.get_origin(kind) is typing.Literal:
            flags.DEFINE_enum(name, default, typing.get_args(kind), flag.help)
        elif typing.get_origin(kind) is tuple:
            define = flags.DEFINE_multi_string if flag.repeated else flags.DEFINE_list
            define(name, list(default), flag.help)
        else:
            flags.DEFINE_string(name, default, flag.help)


_define_flags()


def read_options() -> Options:
    """Returns the values of the parsed flags."""
    values: dict[str, typing.Any] = {}
    for name in flag_table():
        value = flags.FLAGS[name].value
        values[name] = tuple(value) if isinstance(value, list) else value
    return Options(**values)


def canonical_mode(name: str) -> str:
    """Returns the key of ``MODES`` for a value of ``--mode``, which may be another name of a mode.

    Raises:
        SystemExit: if there is no such mode; the message suggests the nearest one.
    """
    mode = _ALIASES.get(name, name)
    if mode not in MODES:
        sys.exit(f"Unknown --mode={name}; did you mean {nearest(name, MODES)!r}? Modes: {', '.join(MODES)}.")
    return mode


def help_text(mode: str | None = None) -> str:
    """Returns what ``--help`` prints: the modes and the flags, grouped by the modes that read them.

    Args:
        mode: lists only the flags of this mode, a key of ``MODES``.
    """
    lines = ["EfficientNetV2: train, evaluate, export and search networks.", "", "Modes (--mode=NAME):"]
    lines += [f"  {name:<13} {entry.help}" for name, entry in MODES.items()]
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, (kind, flag) in flag_table().items():
        if mode is None or not flag.modes or mode in flag.modes:
            groups.setdefault(flag.modes, []).append(_flag_help(name, kind, flag.help))
    for modes, texts in groups.items():
        lines += ["", f"Flags of --mode={', '.join(modes)}:" if modes else "Flags of every mode:", *texts]
    lines += [
        "",
        "--mode=NAME --help lists the flags of one mode. The settings of --hparam_str are in",
        "effnetv2_keras/config/ and on the page Settings of the documentation, which `make docs` builds.",
    ]
    return "\n".join(lines)


def _flag_help(name: str, kind: typing.Any, text: str) -> str:
    default = getattr(Options(), name)
    choices = f" One of {', '.join(typing.get_args(kind))}." if typing.get_origin(kind) is typing.Literal else ""
    if name == "dataset_cfg":
        choices = f" One of {', '.join(hparams.names())}."
    shown = ",".join(default) if isinstance(default, tuple) else default
    known = "" if shown in (None, "", False) else f" Default: {'true' if shown is True else shown}."
    body = textwrap.fill(text + choices + known, 78, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return f"  --{'[no]' if kind is bool else ''}{name}\n{body}"


def _parse(argv: list[str]) -> list[str]:
    """Parses the flags; ``--help`` prints ``help_text`` and exits, and so do flags that only the reference code has."""
    if {"--help", "-help", "-h", "--helpfull", "--helpshort"} & set(argv):
        parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        parser.add_argument("--mode")
        mode = parser.parse_known_args(argv)[0].mode
        print(help_text(mode and canonical_mode(mode)))
        sys.exit(0)
    try:
        check_flags(argv[1:])
    except UsageError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    return app.parse_flags_with_usage(argv)


def _refuse_strays(mode: str, words: list[str]) -> None:
    """Ends the process if there are words that are no flags and that the mode would ignore."""
    if words and mode != options_lib.PREDICT:
        sys.exit(
            f"--mode={mode} does not read {' '.join(map(repr, words))}, which is no flag. Write flags as --name=value, "
            "and a value that contains spaces in quotes."
        )


def _refuse_unread(mode: str) -> None:
    """Ends the process if a flag was given that the mode does not read.

    ``plan`` and ``preview`` take the command of a training run as it is; they warn of flags that only training reads.
    """
    reads_of_training = mode in (options_lib.PLAN, options_lib.PREVIEW)
    for name, (_, flag) in flag_table().items():
        if not flags.FLAGS[name].present or not flag.modes or mode in flag.modes:
            continue
        unread = f"--mode={mode} does not read --{name}, a flag of --mode={', '.join(flag.modes)}"
        if not (reads_of_training and options_lib.TRAIN in flag.modes):
            sys.exit(f"{unread}, so it would change nothing. Leave it out.")
        logging.warning("%s. It changes nothing here.", unread)


_CHATTY = tuple(
    os.path.join(folder, "")
    for name in ("tensorflow", "matplotlib")
    if (package := importlib.util.find_spec(name))
    for folder in package.submodule_search_locations or ()
)


def _is_worth_telling(record: standard_logging.LogRecord) -> bool:
    """Whether a message is a warning, or does not come from a package that comments on every checkpoint."""
    return record.levelno > standard_logging.INFO or not record.pathname.startswith(_CHATTY)


def main(argv: list[str]) -> None:
    """Runs one mode. An error that the user can correct is printed as one message, without a traceback."""
    options = read_options()
    name = canonical_mode(options.mode)
    _refuse_strays(name, argv[1:])
    _refuse_unread(name)
    logging.get_absl_handler().addFilter(_is_worth_telling)
    console = rich.console.Console(width=None if sys.stdout.isatty() else 80)
    try:
        with doing("loading TensorFlow"), explained(f"--mode={name}"):
            module = importlib.import_module(f"effnetv2_keras.{MODES[name].module}")
        given = frozenset(name for name in flag_table() if flags.FLAGS[name].present)
        module.run(Invocation(options, console, tuple(argv[1:]), hparams.load, given))
    except (Interrupted, WorkerLost) as stop:
        logging.warning("%s", stop)
        sys.exit(EXIT_INTERRUPTED)
    except KeyboardInterrupt:
        logging.warning("Stopped. Run the same command to start again.")
        sys.exit(EXIT_INTERRUPTED)
    except (UsageError, TrainingDiverged) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except OSError as error:
        path = error.filename2 or error.filename  # of a file that is renamed, the new name
        if path is None:
            raise
        logging.debug("This is where it happened:", exc_info=True)
        sys.exit(f"{path!r} cannot be read or written: {error.strerror}. Check the path and its permissions.")


def run() -> None:
    """Parses the flags of the command line and runs ``main``."""
    try:
        with answered(), shown("working"):
            logging.get_absl_handler().python_handler.setStream(sys.stderr)  # it has that of the import
            app.run(main, flags_parser=_parse)
    except SystemExit as end:
        end_process(end.code, always=end.code == EXIT_INTERRUPTED)
        raise
