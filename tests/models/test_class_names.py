from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_keras import decode_predictions
from effnetv2_keras.errors import UsageError

NAMES = ["ant", "bee", "cat", "dog"]
SCORES = np.array([[0.1, 0.2, 0.4, 0.3], [0.7, 0.1, 0.1, 0.1]], np.float32)


def test_the_likeliest_come_first():
    assert decode_predictions(SCORES, 2, NAMES) == [
        [("2", "cat", SCORES[0, 2]), ("3", "dog", SCORES[0, 3])],
        [("0", "ant", SCORES[1, 0]), ("1", "bee", SCORES[1, 1])],
    ]
    assert decode_predictions(tf.constant(SCORES), 2, NAMES) == decode_predictions(SCORES, 2, NAMES)
    assert [len(row) for row in decode_predictions(SCORES, labels=NAMES)] == [4, 4]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("names.txt", "ant\nbee\ncat\ndog\n"),
        ("names.txt", "ant\r\nbee\r\ncat \r\ndog"),
        ("names.json", json.dumps(NAMES)),
    ],
)
def test_names_come_from_a_file(name, text, tmp_path):
    (tmp_path / name).write_bytes(text.encode())
    for path in (tmp_path / name, str(tmp_path / name)):
        assert decode_predictions(SCORES, 3, path) == decode_predictions(SCORES, 3, NAMES)


def test_a_class_index_gives_identifiers(tmp_path):
    entries = {str(number): [f"n{number:08d}", name] for number, name in enumerate(NAMES)}
    (tmp_path / "index.json").write_text(json.dumps(dict(reversed(entries.items()))))
    assert decode_predictions(SCORES, 1, tmp_path / "index.json") == [
        [("n00000002", "cat", SCORES[0, 2])],
        [("n00000000", "ant", SCORES[1, 0])],
    ]


CLASS_INDEX = f"{tf.keras.applications.imagenet_utils.decode_predictions.__module__}.CLASS_INDEX"


def test_imagenet_is_the_default(monkeypatch):
    index = {str(number): [f"n{number:08d}", f"name {number}"] for number in range(1000)}
    monkeypatch.setattr(CLASS_INDEX, index)
    scores = np.random.default_rng(0).uniform(size=[2, 1000]).astype(np.float32)
    named = decode_predictions(scores, top=3)
    assert named == tf.keras.applications.efficientnet_v2.decode_predictions(scores, top=3)
    assert [row[0][0] for row in named] == [f"n{number:08d}" for number in scores.argmax(1)]


def test_without_network_imagenet_says_what_to_do(monkeypatch, tmp_path):
    def no_network(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(CLASS_INDEX, None)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr("socket.create_connection", no_network)
    with pytest.raises(
        UsageError, match=r"class names of ImageNet \(.*Put imagenet_class_index.json into .*pass labels"
    ):
        decode_predictions(np.zeros([1, 1000]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((SCORES, 5), r"preds has shape \(2, 4\), but with 1000 labels it must be \(images, 1000\)"),
        ((SCORES[0], 5, NAMES), r"preds has shape \(4,\), but with 4 labels it must be \(images, 4\)"),
        ((SCORES, 5, NAMES[:3]), r"preds has shape \(2, 4\), but with 3 labels it must be \(images, 3\)"),
        ((SCORES, 0, NAMES), "top is 0, but must be at least 1"),
        ((SCORES, 5, "nowhere.txt"), "labels is 'nowhere.txt', but there is no such file"),
        ((SCORES, 5, []), "labels must contain at least one class name"),
        ((SCORES, 5, ["ant", "", "cat", "dog"]), "every name must be a non-blank string"),
        ((SCORES, 5, [1, 2, 3, 4]), "every name must be a non-blank string"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(UsageError, match=message):
        decode_predictions(*arguments)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "is not valid JSON"),
        ("3", "is int, but must be a list of names"),
        (
            '{"0": ["a", "b"], "2": ["c", "d"]}',
            r'has 2 entries, but not the keys "0" to "1", each with \[identifier, name\]',
        ),
        ('{"0": ["a"]}', 'has 1 entries, but not the keys "0" to "0"'),
        ('{"0": "ab"}', "Correct the file"),
    ],
)
def test_a_broken_file_is_refused(text, message, tmp_path):
    (tmp_path / "names.json").write_text(text)
    with pytest.raises(UsageError, match=message):
        decode_predictions(SCORES, 5, tmp_path / "names.json")


def test_only_line_feeds_end_a_name_in_a_file(tmp_path):
    names = ["a\u2028b", "c\x85d", "e\x0bf"]
    (tmp_path / "labels.txt").write_text("".join(f"{name}\n" for name in names), "utf-8")
    (named,) = decode_predictions(np.eye(3)[:1], labels=tmp_path / "labels.txt")
    assert named[0][:2] == ("0", names[0])
    assert {name for _, name, _ in named} == set(names)
