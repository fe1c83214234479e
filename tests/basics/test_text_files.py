import codecs
import json
import logging

import pytest

from effnetv2_keras.architecture.variants import get_spec
from effnetv2_keras.basics.text_files import printable, read_text
from effnetv2_keras.config.overrides import parse_overrides
from effnetv2_keras.data.sources.labels import read_labels
from effnetv2_keras.errors import UsageError
from effnetv2_keras.models.class_names import decode_predictions

TEXT = "rosé\nDvořák 中\n"
ENCODED = [TEXT.encode(name) for name in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32")]
ENCODED += [codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be")]


@pytest.mark.parametrize("content", [*ENCODED, "rosé\nœuvre\n".encode("cp1252"), b""])
def test_text_is_read_in_the_encoding_that_it_has(tmp_path, content):
    (tmp_path / "a.txt").write_bytes(content)
    assert read_text(tmp_path / "a.txt") in (TEXT, "rosé\nœuvre\n", "")


def test_a_guessed_encoding_is_named_with_what_it_gives(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    (tmp_path / "a.txt").write_text(TEXT, "utf-8")
    read_text(tmp_path / "a.txt")
    assert not caplog.text
    (tmp_path / "a.txt").write_text("a\nrosé 1\n", "latin-1")
    read_text(tmp_path / "a.txt")
    assert "a.txt is not UTF-8. Reading it as cp1252, which gives for example 'rosé'. If that is wrong" in caplog.text


@pytest.mark.parametrize("content", [b"\x89PNG\0\0\0\rIHDR", b"ros\x81\n", codecs.BOM_UTF16_LE + b"abc"])
def test_what_is_no_text_is_refused_with_its_name(tmp_path, content):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(UsageError, match=r"a.txt is not text in UTF-8, UTF-16 or Windows-1252: .* Save it as UTF-8"):
        read_text(tmp_path / "a.txt")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_files_that_users_write_have_any_encoding(tmp_path, encoding):
    def write(name, text):
        (tmp_path / name).write_bytes(text.encode(encoding))
        return tmp_path / name

    write("labels.txt", "cat\nrosé\n")
    assert read_labels(tmp_path) == ("cat", "rosé")
    assert decode_predictions([[0, 1]], labels=tmp_path / "labels.txt")[0][0][1] == "rosé"
    assert parse_overrides(str(write("a.yaml", "data: {data_dir: rosé}"))) == {"data.data_dir": "rosé"}
    spec = json.loads(get_spec("efficientnetv2-b0").to_json())
    path = write("net.json", json.dumps({**spec, "name": "rosé"}, ensure_ascii=False))
    assert get_spec(str(path)).name == "rosé"


def test_names_of_files_that_are_not_utf_8_can_be_printed():
    assert printable("rosé") == "rosé"
    assert printable(b"a/ros\xe9".decode("utf-8", "surrogateescape")) == "a/rosé"
    printable(b"\x81\xff".decode("utf-8", "surrogateescape")).encode()
