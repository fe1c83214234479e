"""The flags of the command line: one typed table, from which ``cli`` defines the flags and writes ``--help``."""

from __future__ import annotations

import dataclasses
import os
from typing import Annotated, Any, Literal, Optional, get_type_hints

TRAIN, EVAL, PREDICT, EXPORT, BENCHMARK = "train", "eval", "predict", "export", "benchmark"
REPORT, PLAN, PREVIEW, SUMMARY = "report", "plan", "preview", "summary"
SEARCH, SCALE, DATA_SERVICE = "search", "scale", "data_service"
_Text = Optional[str]
_Number = Optional[int]
_DEVICE_MODES = (TRAIN, EVAL, PLAN)
_TRAINED_MODES = (EVAL, PREDICT, EXPORT, BENCHMARK, REPORT)
_RECIPE_MODES = (TRAIN, EVAL, BENCHMARK, PLAN, PREVIEW, SUMMARY, SEARCH)


@dataclasses.dataclass(frozen=True)
class Flag:
    """How a field of ``Options`` appears on the command line.

    Attributes:
        help: what the flag does, for ``--help``.
        modes: the modes that read the flag; empty means every mode.
        low: smallest integer allowed.
        high: largest integer allowed.
        repeated: whether the flag is given once per value; other tuples are separated by commas.
        path: whether the value is, or may be, a path, so that ``~`` at its start is the home folder.
    """

    help: str
    modes: tuple[str, ...] = ()
    low: int | None = None
    high: int | None = None
    repeated: bool = False
    path: bool = False


@dataclasses.dataclass(frozen=True)
class Options:
    """The values of all flags. Each field is one flag; its ``Flag`` documents it."""

    mode: Annotated[str, Flag("What to do: one of the modes above. traineval is another name for train.")] = TRAIN
    model_name: Annotated[
        _Text,
        Flag(
            "Network: efficientnetv2-nano, -micro, -b0 to -b3, -s, -m, -l, -xl; efficientnet-b0 to -b8, -l2; PATH.json "
            "(a ModelSpec); keras:NAME (of tf.keras.applications) or keras:package.module:function. Default: the "
            "recipes folder, csv and tfds choose by the number of images; all others take efficientnetv2-b0.",
            (*_RECIPE_MODES, SCALE),
            path=True,
        ),
    ] = None
    dataset_cfg: Annotated[
        str, Flag("Recipe: the name of a file in hparams/, in upper or lower case.", _RECIPE_MODES)
    ] = "folder"
    hparam_str: Annotated[
        tuple[str, ...],
        Flag(
            "Settings to override: 'a.b=1,c.d=x|y', or the path of a YAML file. Repeat the flag to join several; a "
            "later value replaces an earlier one.",
            repeated=True,
            path=True,
        ),
    ] = ()
    data_dir: Annotated[
        _Text,
        Flag(
            "Folder of the images, a list of image files (LIST.csv), or folder of TensorFlow Datasets.",
            (TRAIN, EVAL, EXPORT, BENCHMARK, REPORT, PLAN, PREVIEW, SEARCH),
            path=True,
        ),
    ] = None
    model_dir: Annotated[_Text, Flag("Folder of the run.", (TRAIN, *_TRAINED_MODES, SEARCH), path=True)] = None

    strategy: Annotated[
        str,
        Flag("Devices: auto, cpu, mirrored (all GPUs of this machine), multiworker or tpu.", (*_DEVICE_MODES, SEARCH)),
    ] = "auto"
    tpu: Annotated[str, Flag("Name or address of the TPU; 'local' is the TPU of this host.", _DEVICE_MODES)] = ""
    tpu_zone: Annotated[str, Flag("Google Cloud zone of the TPU; default: from the environment.", _DEVICE_MODES)] = ""
    gcp_project: Annotated[
        str, Flag("Google Cloud project of the TPU; default: from the environment.", _DEVICE_MODES)
    ] = ""
    use_tpu: Annotated[bool, Flag("Short for --strategy=tpu.", _DEVICE_MODES)] = False
    workers: Annotated[
        tuple[str, ...],
        Flag("multiworker: all workers as host:port,host:port; default: TF_CONFIG.", _DEVICE_MODES),
    ] = ()
    worker_index: Annotated[
        int, Flag("multiworker: position of this worker in --workers, from 0.", _DEVICE_MODES, low=0)
    ] = 0
    rejoin: Annotated[bool, Flag("multiworker: when another worker is lost, restart and wait for it.", (TRAIN,))] = True

    weights: Annotated[Literal["best", "latest"], Flag("Which checkpoint of the run to load.", _TRAINED_MODES)] = "best"
    use_ema: Annotated[
        bool,
        Flag(
            "Load the moving average of the weights instead of the raw weights.", (PREDICT, EXPORT, BENCHMARK, REPORT)
        ),
    ] = True
    output_dir: Annotated[
        _Text,
        Flag(
            "Folder for the files that are written; default: the run's folder, or the current folder.",
            (EVAL, SCALE),
            path=True,
        ),
    ] = None
    image_size: Annotated[
        _Number, Flag("Side of images, pixels; default: the evaluation size.", (EXPORT, BENCHMARK))
    ] = None
    format: Annotated[
        _Text,
        Flag(
            "predict: table, json, csv or jsonl; default: from the ending of --output. export: savedmodel, keras, "
            "tflite or onnx. benchmark: one or more export formats, separated by commas. Default: the first listed.",
            (PREDICT, EXPORT, BENCHMARK),
        ),
    ] = None
    quantize: Annotated[
        Literal["none", "float16", "dynamic", "int8"],
        Flag("tflite: number type of the weights and, for int8, of the activations.", (EXPORT, BENCHMARK)),
    ] = "none"
    trainable: Annotated[
        bool,
        Flag(
            "savedmodel: keep the weights as variables, which can be trained further; predictions are slower.",
            (EXPORT,),
        ),
    ] = False
    overwrite: Annotated[bool, Flag("Replace files that exist.", (EXPORT, SCALE))] = False

    images: Annotated[
        tuple[str, ...],
        Flag(
            "A file or folder to classify; repeat the flag, or list paths after the flags.",
            (PREDICT,),
            repeated=True,
            path=True,
        ),
    ] = ()
    top_k: Annotated[int, Flag("Number of classes to list for each image.", (PREDICT,), low=1)] = 5
    output: Annotated[
        _Text,
        Flag(
            "PATH.csv, .json or .jsonl: file for the predictions, instead of the screen; replaced if it exists.",
            (PREDICT,),
            path=True,
        ),
    ] = None
    embeddings: Annotated[
        _Text,
        Flag(
            "PATH.npz: also write the features before the classifier, for numpy.load; only with the folder of a run.",
            (PREDICT,),
            path=True,
        ),
    ] = None
    export_dir: Annotated[_Text, Flag("Folder to create; default: a folder in --model_dir.", (EXPORT,), path=True)] = (
        None
    )
    batch_sizes: Annotated[tuple[str, ...], Flag("Images per call, separated by commas.", (BENCHMARK,))] = (
        "1",
        "8",
        "32",
    )
    estimate: Annotated[
        bool, Flag("Measure a few steps of each stage and print how long the run will take on this machine.", (PLAN,))
    ] = False
    preview_file: Annotated[str, Flag("PNG to write.", (PREVIEW,), path=True)] = "preview.png"
    phi: Annotated[
        tuple[str, ...],
        Flag("V1's compound coefficients, such as 1,2,3; default: the steps from S to M and from S to L.", (SCALE,)),
    ] = ()
    port: Annotated[
        int,
        Flag(
            "First port; each service takes two consecutive ones. 0 picks free ones.",
            (DATA_SERVICE,),
            low=0,
            high=65535,
        ),
    ] = 5050
    service_workers: Annotated[int, Flag("Number of services to start.", (DATA_SERVICE,), low=1)] = 1
    service_host: Annotated[
        str,
        Flag(
            "Name under which training processes reach this machine. The services listen on every network interface, "
            "whatever this is.",
            (DATA_SERVICE,),
        ),
    ] = "localhost"

    def __post_init__(self) -> None:
        """Replaces ``~`` at the start of paths by the home folder, as a shell does."""
        for name, (_, flag) in flag_table().items():
            value = getattr(self, name)
            if flag.path and value:
                expanded = tuple(map(os.path.expanduser, value)) if flag.repeated else os.path.expanduser(value)
                object.__setattr__(self, name, expanded)


def flag_table() -> dict[str, tuple[Any, Flag]]:
    """Returns the type and the ``Flag`` of every field of ``Options``, in order."""
    hints = get_type_hints(Options, include_extras=True)
    return {name: (hint.__origin__, hint.__metadata__[0]) for name, hint in hints.items()}
