"""Which role the name of a split plays: training, validation or test, in the usual spellings of public data sets."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from absl import logging

from effnetv2_keras import config as config_lib
from effnetv2_keras.data.sources.base import DataError
from effnetv2_keras.data.sources.slices import parse_slice

TRAIN, VALIDATION, TEST = "train", "validation", "test"

_WORDS = {
    TRAIN: r"train[\W_]*val(?:id(?:ation)?)?|train(?:ing)?|trn",
    VALIDATION: r"val(?:id(?:ation|ating)?)?|dev(?:el(?:opment)?)?|eval(?:uation)?|hold[\W_]*out|held[\W_]*out",
    TEST: r"test(?:ing)?|tst",
}
_FILLER = (
    r"(?:[\W_\d]|sets?|splits?|data(?:sets?)?|images?|imgs?|pictures?|pics?|photos?|jpe?gs?|pngs?|gifs?|bmps?|csvs?|"
    r"tfrecords?|records?|files?|folder|dir|classes|labels?|labell?ed|lists?|annotations?|metadata|df|seg|cls|ilsvrc|"
    r"imagenet|raw|resized|cropped|final|full|all|original|clean|processed)*"
)
_CERTAIN = {role: re.compile(f"{_FILLER}(?:{words}){_FILLER}", re.IGNORECASE) for role, words in _WORDS.items()}
_PLAIN = {role: re.compile(words, re.IGNORECASE) for role, words in _WORDS.items()}
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_UNLABELED = re.compile(
    f"{_FILLER}(?:pred(?:ict(?:ions?)?)?|inference|unlabell?ed|submissions?){_FILLER}", re.IGNORECASE
)


def role_of(name: str) -> str | None:
    """Returns the role that a name plays for certain, such as ``"train"`` for ``Training_set``; None if it has none."""
    return next((role for role, pattern in _CERTAIN.items() if pattern.fullmatch(name)), None)


def is_unlabeled(name: str) -> bool:
    """Returns whether a name says that its images have no labels, such as ``seg_pred``."""
    return bool(_UNLABELED.fullmatch(name))


def _possible_role(name: str) -> tuple[str, str] | None:
    """Returns the role of the only word of a name that has one, and the rest of the name; None if there is no such."""
    parts = [part.lower() for part in _PART.findall(name)]
    roles = [(role, number) for number, part in enumerate(parts) if (role := role_of(part))]
    if len(roles) != 1:
        return None
    role, number = roles[0]
    return role, " ".join(parts[:number] + ["*"] + parts[number + 1 :])


def roles_of(names: Iterable[str]) -> dict[str, str]:
    """Returns the roles of the names that have one for certain.

    These are the usual spellings (``train``, ``Testing``, ``val2017``, ``seg_train``), and names that differ only in
    that word (``cars_train`` and ``cars_test``).
    """
    names = list(names)
    roles = {name: role for name in names if (role := role_of(name))}
    possible = {name: found for name in names if (found := _possible_role(name))}
    for name, (role, rest) in possible.items():
        if any(other_role != role and other_rest == rest for other_role, other_rest in possible.values()):
            roles.setdefault(name, role)
    return roles


def possible_roles(names: Iterable[str]) -> dict[str, str]:
    """Returns the roles that names may play, such as ``"train"`` for ``train_from_2019``."""
    return {name: found[0] for name in names if (found := _possible_role(name))}


def _only(
    role: str, names: Collection[str], place: str, *, exclude: Collection[str] = (), prefer_plain: bool
) -> str | None:
    """Returns the only name with a role, or None; several are an error."""
    found = sorted(name for name, its_role in roles_of(names).items() if its_role == role and name not in exclude)
    plain = [name for name in found if _PLAIN[role].fullmatch(name)]
    if prefer_plain and (role in found or len(plain) == 1):
        return role if role in found else plain[0]
    if len(found) > 1:
        setting = "data.train_split" if role == TRAIN else "data.eval_split"
        other = next(name for name in found if name != TRAIN)
        keep = f" (for {TRAIN!r} itself, set data.eval_split instead)" if TRAIN in found else ""
        raise DataError(
            f"{place} has {' and '.join(map(repr, found))}, and each may be the {role} split. Choose one, such as "
            f"--hparam_str={setting}={other}{keep}, or rename or move the other."
        )
    return found[0] if found else None


def find_train(
    names: Collection[str], data: config_lib.DataConfig, place: str, *, prefer_plain: bool = False
) -> str | None:
    """Returns the name of the training split.

    ``train``, the default of ``data.train_split``, means the training split in any usual spelling. Another name is
    taken as it is, and so is ``train`` if ``data.eval_split`` is set.

    Args:
        names: the splits that exist.
        data: the data settings.
        place: the data, for messages.
        prefer_plain: whether ``train`` is preferred to ``Training`` and ``train_labels`` if they exist too.

    Returns:
        The name, or None if there is no such split.

    Raises:
        DataError: if several splits may be meant.
    """
    name = parse_slice(data.train_split).name
    if name == TRAIN and not (data.eval_split and name in names):
        return _only(TRAIN, names, place, prefer_plain=prefer_plain)
    return name if name in names else None


def find_evaluation(
    names: Collection[str], place: str, *, exclude: Collection[str] = (), prefer_plain: bool = False
) -> str | None:
    """Returns the split to evaluate on if ``data.eval_split`` is not set: validation, or else test, or else None.

    Args:
        names: the splits that exist.
        place: the data, for messages.
        exclude: splits that are not for evaluation.
        prefer_plain: as for ``find_train``.

    Raises:
        DataError: if several splits may be meant.
    """
    for role in (VALIDATION, TEST):
        name = _only(role, names, place, exclude=exclude, prefer_plain=prefer_plain)
        if name is not None:
            return name
    return None


def find_validation(names: Collection[str], place: str, *, prefer_plain: bool = False) -> str | None:
    """Returns the validation split, or None; as for ``find_evaluation``."""
    return _only(VALIDATION, names, place, prefer_plain=prefer_plain)


def announce(place: str, names: Iterable[str], train: str, evaluation: str | None, *, chosen: bool) -> None:
    """Logs which splits a run uses; warns if the test split is used for evaluation without a setting that says so.

    Args:
        place: the data.
        names: the splits that exist.
        train: the training split.
        evaluation: the evaluation split; None if a part of the training split is held out.
        chosen: whether the user chose the evaluation split.
    """
    logging.info(
        "%s: training on %r, evaluating on %s.",
        place,
        train,
        repr(evaluation) if evaluation else "held-out images of it",
    )
    if evaluation and not chosen and roles_of(names).get(evaluation) == TEST:
        logging.warning(
            "%s has no validation split. The best checkpoint is chosen on the test split, %r, so its accuracy there is "
            "too optimistic. To hold out training images instead, set "
            "--hparam_str=data.train_split=%s[10%%:],data.eval_split=%s[:10%%]",
            place, evaluation, train, train,
        )  # fmt: skip
