"""Lists as spreadsheets, competitions and old archives have them."""

import logging
import os

import PIL.Image
import pytest

from effnetv2_keras.config import Config
from effnetv2_keras.data.sources.base import DataError, Shard
from effnetv2_keras.data.splits import open_splits
from effnetv2_keras.errors import ConfigError

COUNT = 8
KINDS = ("cat", "dog")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of images, 0.png to 7.png, and the same in the folder ``train``."""
    root = tmp_path_factory.mktemp("images")
    (root / "train").mkdir()
    for number in range(COUNT):
        for name in (root / f"{number}.png", root / "train" / f"{number}.png"):
            PIL.Image.new("RGB", (8, 8), (number, 0, 0)).save(name)
    return root


@pytest.fixture
def read(images, caplog):
    """Reads a list of the images; returns the class names, and the labels by number of the image."""
    caplog.set_level(logging.INFO)

    def read(content, **settings):
        path = images / "list.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        splits = open_splits(Config().override({f"data.{k}": v for k, v in settings.items()} | {
            "data.source": "csv", "data.data_dir": str(path), "data.holdout": 0.25}).data)  # fmt: skip
        found = {}
        for source in (splits.train, splits.evaluation):
            for record in source.ordered(Shard()):
                label = record["label"].numpy()
                names = [source.class_names[i] for i in label] if source.multi_label else source.class_names[label]
                found[int(os.path.basename(record["name"].numpy()).split(b".")[0])] = names
        return splits.train.class_names, found

    return read


def table(heading, row, separator=","):
    return "\n".join([heading, *(row.format(i=i, kind=KINDS[i % 2]) for i in range(COUNT))]).replace(",", separator)


EXPECTED = (KINDS, {i: KINDS[i % 2] for i in range(COUNT)})


@pytest.mark.parametrize(
    "content",
    [
        *(table("path,label", "{i}.png,{kind}", separator) for separator in ",;\t|"),
        "sep=;\r\n" + table("path,label", "{i}.png,{kind}", ";"),
        *(
            table(f"{image},{label},size", "{i}.png,{kind},1")
            for image, label in [
                ("Path", "Label"), ("Filename", "class"), ("file_name", "CLASS"), ("filepath", "target"),
                ("image", "category"), ("Image Name", "Breed"), ("image_id", "species"), ("img", "diagnosis"),
                ("id", "labels"), ("ImageID", "dx"),
            ]
        ),
        table("id,image,class_id,class_name", "{i}{i},{i}.png,9,{kind}"),
        table("label,has a strange name", "{kind},{i}.png"),
        table(",path,has a strange name,", "7,{i}.png,{kind},"),
        table("note,path,label,note", "a,{i}.png,{kind},b"),
        "\n\n" + table("path,label", "{i}.png,{kind}").replace("\n", "\n\n,\n"),
        table("path,label,,", "{i}.png,{kind},,"),
        table('"path","label"', '"{i}.png", "{kind}"').replace("\n", "\r\n"),
        table("path,label", ".\\\\{i}.png,{kind}"),
        table("path,label,note", "{i}.png,{kind},") + "x" * 140_000,
        table("path;label", "{i}.png;{kind}").encode("utf-16"),
        table("path\tlabel", "{i}.png\t{kind}").encode("utf-8-sig"),
        table("path,label", "{i}.png,['{kind}']"),
    ],
)  # fmt: skip
def test_lists_are_read_as_people_write_them(read, content):
    assert read(content) == EXPECTED


def test_what_was_taken_is_logged(read, caplog):
    read(table("Image Name;Breed;x", "{i}.png;{kind};1"))
    assert "utf-8, semicolon-separated, images in column 'Image Name', labels in column 'Breed'." in caplog.text


@pytest.mark.parametrize(
    ("settings", "path"),
    [
        ({"path_template": "train/{}.png"}, "{i}"),
        ({"path_template": "{}.png"}, "{i}"),
        ({"image_key": "FILE", "label_key": "Kind"}, "train/{i}.png"),
    ],
)
def test_settings_say_what_the_list_does_not(read, settings, path):
    assert read(table("a,file,kind", f"1,{path},{{kind}}"), **{"image_key": "file", "label_key": "kind", **settings})
    with pytest.raises(ConfigError, match="path_template.*must contain {}, which stands for what the list has"):
        read("", path_template="train/.png")


def test_columns_of_0_and_1_are_classes(read):
    content = "\n".join(["image,b,a,c", *(f"{i}.png,{i % 2}.0,{1 - i % 2}.0,0" for i in range(COUNT))])
    single = (("b", "a", "c"), {i: "ab"[i % 2] for i in range(COUNT)})
    assert read(content) == single
    assert read("\n".join(f"{line},age {number}" for number, line in enumerate(content.splitlines()))) == single
    several = "\n".join(["image,age,b,a", *(f"{i}.png,1,{i % 2},1" for i in range(COUNT))])
    names, labels = read(several, label_key="b|a", multi_label=True)
    assert (names, labels[0], labels[1]) == (("b", "a"), ["a"], ["b", "a"])
    with pytest.raises(
        DataError, match=r"line 3: .*1.png has 2 labels, b, a, but must have one.*data.multi_label=true"
    ):
        read(several, label_key="b|a")
    with pytest.raises(DataError, match=r"line 2: .*0.png has '0.5' in the column 'b' of a class, which must hold 0"):
        read(several.replace("0.png,1,0", "0.png,1,0.5"), label_key="b|a")


@pytest.mark.parametrize(
    ("cells", "separator"),
    [
        (("cat", "['cat', 'dog']", "[]"), ";"),
        (("cat", '"[""cat"", ""dog""]"', "[]"), ";"),
        (("['cat']", "['cat' 'dog']", ""), ";"),
        (("[cat]", "[cat,dog]", "[]"), ";"),
        (("cat", "cat dog", ""), "space"),
        (("cat", '"cat, dog"', ""), "comma"),
        (("cat", "cat,dog", ""), "comma"),
        (("cat", "cat|dog", ""), "|"),
    ],
)
def test_several_labels_are_written_in_many_ways(read, cells, separator):
    quoted = [f'"{cell}"' if "[" in cell and '"' not in cell else cell for cell in cells]
    content = "\n".join(["path,label", *(f"{i}.png,{quoted[i % 3]}" for i in range(COUNT))])
    names, labels = read(content, multi_label=True, label_separator=separator)
    assert names == KINDS
    assert [labels[i] for i in range(3)] == [["cat"], ["cat", "dog"], []]


def test_a_separator_that_was_not_meant_is_named(read, caplog):
    labels = ("cat big", "dog big", "cat dog", "cat") * 2
    content = "\n".join(["path,label", *(f"{i}.png,{label}" for i, label in enumerate(labels))])
    read(content, multi_label=True)
    assert (
        "'cat big' is one label, because the separator is ';'. If it is several, set data.multi_label=true,"
        in caplog.text
    )
    assert "data.label_separator=space" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (table("path,label,Label", "{i}.png,{kind},x"), None),
        (table("path,Label,Class", "{i}.png,a,b"), "the label: 'Label', 'Class'. Choose one: .*data.label_key=Label"),
        (table("file,filename,label", "a,b,c"), "the image: 'file', 'filename'. Choose one: .*data.image_key=file"),
        (table("path,label,label", "{i}.png,a,b"), "the label: 'label', 'label'. Give each column another name"),
        (table("image,a,a", "{i}.png,0,1"), "can hold the label: 'a'. Give each column another name"),
        ("a.jpg,cat,1\nb.jpg,dog,1", "has no column 'path', 'label'.*That line seems to be the row of an image"),
        (table("path,label", "{i}.png,a,b"), "line 2: there are 3 cells, but the heading has 2: 'path', 'label'. Put"),
        (table("path,label", "{i},{kind}"), r"no file .*/0 .and 7 more of 8.. There is 0.png. .*path_template={}.png"),
        (table("path,label", "/kaggle/train/{i}.png,{kind}"), "There is train/0.png. Change the paths in the list to"),
        (table("path,label", ",{kind}"), "line 2: '' is no path of an image. Correct or remove the row"),
        (table("path,label", '{i}.png,"cat'), "has the label .*contains a line break.*perhaps a quotation"),
        (table("path,label", "{i}.png,\"['a', 'b']\""), "line 2: .*0.png has 2 labels, a, b, but must have one"),
    ],
)  # fmt: skip
def test_what_is_ambiguous_or_wrong_is_asked(read, content, message):
    if message is None:
        assert read(content)[0] == KINDS
        return
    with pytest.raises(DataError, match=message):
        read(content)


def test_labels_txt_without_a_class_is_named_as_the_cause(read, images):
    (images / "labels.txt").write_text("cat\n")
    try:
        with pytest.raises(
            DataError, match=r"labels.txt lacks 'dog', the label of 4 images. It names 1 classes: cat. Add"
        ):
            read(table("path,label", "{i}.png,{kind}"))
    finally:
        (images / "labels.txt").unlink()


@pytest.mark.parametrize("suffix", [".tsv", ".txt"])
def test_lists_in_a_folder_have_other_suffixes(tmp_path, images, suffix):
    for name, numbers in (("train", range(6)), ("test", (6, 7))):
        rows = "".join(f"{images}/{i}.png\t{KINDS[i % 2]}\n" for i in numbers)
        (tmp_path / f"{name}{suffix}").write_text("path\tlabel\n" + rows)
    splits = open_splits(Config().override({"data.source": "csv", "data.data_dir": str(tmp_path)}).data)
    assert (splits.train.num_examples, splits.evaluation.num_examples) == (6, 2)


OLD = "rosé".encode("latin-1")


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_lists_name_files_whose_names_are_not_utf_8(tmp_path, encoding):
    root = os.fsencode(tmp_path)
    for number in range(COUNT):
        PIL.Image.new("RGB", (8, 8)).save(os.fsdecode(os.path.join(root, b"%d%s.png" % (number, OLD))))
    rows = table("path,label", "{i}rosé.png,{kind}é")
    (tmp_path / "list.csv").write_bytes(rows.encode(encoding))
    splits = open_splits(Config().override({"data.source": "csv", "data.data_dir": str(tmp_path / "list.csv")}).data)
    assert splits.train.class_names == ("caté", "dogé")
    assert all(OLD in record["name"].numpy() for record in splits.train.ordered(Shard()))


def test_folders_and_files_whose_names_are_not_utf_8_are_read(tmp_path, caplog):
    for split, kind in ((b"train", OLD), (b"validation", "rosé".encode()), (b"train", b"dog"), (b"validation", b"dog")):
        folder = os.path.join(os.fsencode(tmp_path), split, kind)
        os.makedirs(folder)
        for number in range(2):
            PIL.Image.new("RGB", (8, 8)).save(os.fsdecode(os.path.join(folder, b"%d%s.png" % (number, OLD))))
    splits = open_splits(Config().override({"data.data_dir": str(tmp_path)}).data)
    assert splits.train.class_names == splits.evaluation.class_names == ("dog", "rosé")
    assert "names of 1 classes are not UTF-8. They are read as Windows-1252, which gives rosé" in caplog.text
    labels = [int(record["label"]) for record in splits.train.ordered(Shard())]
    assert sorted(labels) == [0, 0, 1, 1]
    os.rename(tmp_path / "validation" / "rosé", tmp_path / "train" / "rosé")
    with pytest.raises(DataError, match="Several folders have the class name rosé in different bytes"):
        open_splits(Config().override({"data.data_dir": str(tmp_path), "data.eval_split": "train"}).data)


@pytest.mark.parametrize(
    "content",
    [
        table("path label", "{i}.png {kind}"),
        table("path  label", "{i}.png   {kind}"),
        table("file names,class names", "{i}.png,{kind}"),
        table("class id,filepaths,labels,data set", "{i},{i}.png,{kind},1"),
    ],
)
def test_spaces_and_plurals(read, content):
    assert read(content) == EXPECTED


@pytest.mark.parametrize(("yes", "no"), [("True", "False"), ("TRUE", "FALSE"), ("true", "0")])
def test_columns_of_true_and_false_are_classes(read, yes, no):
    rows = [f"{i}.png,{no if i % 2 else yes},{yes if i % 2 else no}" for i in range(COUNT)]
    assert read("\n".join(["path,cat,dog", *rows])) == EXPECTED


def test_a_column_of_splits_is_pointed_out(read, caplog):
    split = ("train", "valid", "PublicTest")
    rows = [f"{i}.png,{KINDS[i % 2]},{split[i % 3]},train" for i in range(COUNT)]
    assert read("\n".join(["path,label,part,more", *rows])) == EXPECTED
    assert "column 'part' divides the images into 'PublicTest', 'train', 'valid'. It is not used" in caplog.text
    assert "'more'" not in caplog.text


@pytest.mark.parametrize(
    ("train", "test", "settings"),
    [
        (("id_code,diagnosis", "{i},{kind}"), "id_code\n0", {}),
        (("image_id,cat,dog", "{i},1,0"), "image_id\n0", {}),
        (("id,kind,sex", "{i},{kind},f"), "id,sex,age\n0,f,3", {"label_key": "kind"}),
    ],
)
def test_a_test_list_without_labels_is_left_out(tmp_path, images, caplog, train, test, settings):
    rows = table(*train).replace("1,0", "0,1", 4)
    (tmp_path / "train.csv").write_text(rows)
    (tmp_path / "test.csv").write_text(test)
    settings = {"path_template": f"{images}/{{}}.png", "source": "csv", "data_dir": tmp_path} | settings
    data = Config().override({f"data.{key}": str(value) for key, value in settings.items()}).data
    splits = open_splits(data)
    assert splits.train.class_names == KINDS
    assert splits.train.num_examples + splits.evaluation.num_examples == COUNT
    assert "test.csv has no column of labels and is left out" in caplog.text
    with pytest.raises(DataError, match="test.csv has"):
        open_splits(data.model_copy(update={"eval_split": "test"}))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a", "b"), "There is one/a.jpg, but 1 of the images are not found like that. Put the images into one folder"),
        (("A.JPG",), "There is one/A.jpeg. Change the paths in the list to that, or rename"),
        (("/nowhere/a.jpg",), "There is one/a.jpg. Change the paths in the list to that."),
    ],
)
def test_advice_about_paths_serves_for_all_images(tmp_path, names, message):
    for name in ("one/a.jpg", "one/A.jpeg", "two/b.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "list.csv").write_text("\n".join(["path,label", *(f"{name},x" for name in names)]))
    with pytest.raises(DataError, match=message):
        open_splits(Config().override({"data.source": "csv", "data.data_dir": str(tmp_path / "list.csv")}).data)


def test_a_column_that_is_no_class_is_asked_for(read):
    rows = [f"{i}.png,{i % 2},{1 - i % 2},{int(i > 5)}" for i in range(COUNT)]
    with pytest.raises(DataError, match=r"If a column is no class, name the others: data.label_key=a\|b\|c"):
        read("\n".join(["path,dog,cat,is_valid", *rows]))
    found = read("\n".join(["path,dog,cat,is_valid", *rows]), label_key="cat|dog")
    assert found == EXPECTED
