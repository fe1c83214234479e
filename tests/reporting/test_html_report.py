import html.parser
import json
import re
import shutil

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from effnetv2_keras.config import Config
from effnetv2_keras.data.sources.base import ArraySource
from effnetv2_keras.data.splits import Splits
from effnetv2_keras.models import build_model
from effnetv2_keras.reporting import samples
from effnetv2_keras.reporting.class_figures import Answers
from effnetv2_keras.reporting.effective_settings import effective_settings
from effnetv2_keras.reporting.evaluations import evaluation_of, note_evaluation, read_evaluations
from effnetv2_keras.reporting.html_report import write_report
from effnetv2_keras.reporting.samples import Sample, Samples, draw_samples, samples_of_run
from effnetv2_keras.runs.provenance import describe_provenance, note_provenance
from effnetv2_keras.runs.run_folder import RunFolder, RunFolderError
from effnetv2_keras.training.evaluation import Ranking
from tests.browser import find_chromium, open_page, widths_of
from tests.made_runs import make_run
from tests.tiny import TINY

pytestmark = pytest.mark.usefixtures("graphs_as_traced")

NASTY = '<b>&"x"'
NO_SAMPLES = Samples((), "There are none.")
CPU = tf.distribute.OneDeviceStrategy("/cpu:0")


def make_folder(path, *, steps=1200, log_every=5, several=False, **changes):
    """Writes the metrics of a run of 1200 steps in three stages, without training; returns its folder."""
    config = Config().override(
        {"train.epochs": 12, "train.batch_size": 10, "progressive.stages": 3, "data.data_dir": NASTY, **changes}
    )
    labels = np.eye(3, dtype=bool)[np.arange(1000) % 3] if several else np.arange(1000) % 3
    source = ArraySource(np.zeros((1000, 8, 8, 3), np.uint8), labels, (NASTY, "green", "blue"))
    folder = RunFolder(path)
    folder.claim(config, Splits(source, source))
    note_provenance(folder, CPU)
    rows = []
    for step in range(log_every, steps + 1, log_every):
        head = {"step": step, "epoch": step / 100, "stage": (step - 1) // 400, "image_size": 32, "seconds": step / 10}
        figures = {
            "loss": 2 + np.cos(step / 50) / step**0.2, "top1": 0.5, "lr": 1 / step, "gradient_norm": 1.0,
            "images_per_second": 100.0, "input_wait": 0.25 if step <= 400 else 0.05, "memory_mb": float(step),
            "compile_seconds": 7.5 if step % 400 == log_every else 0.0,
        }  # fmt: skip
        rows.append({"kind": "train", **head, **figures})
        if step % 100 == 0:
            score = 1 - 1 / (1 + step / 300) if step != 1200 else 0.7  # the last is not the best
            name = "map" if several else "top1"
            figures = {"num_images": 1000, "top1": score, "top5": 1.0, "eval_loss": 1.0, name: score}
            averaged = {"top1_ema": score + 0.1, "top5_ema": 1.0, "eval_loss_ema": 0.9, f"{name}_ema": score + 0.1}
            rows.append({"kind": "eval", **head, **figures, **averaged, "ema_gap": 0.1})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def make_samples(size=32, *, count=24, overlay=False):
    noise = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)
    predicted = [NASTY, "green"] * (count // 2)
    return Samples(
        tuple(
            Sample(image, (NASTY,), name, 0.876, 255 - image if overlay else None)
            for image, name in zip(noise, predicted)
        ),
        "Noise.",
    )


def note(folder, split, *, names=3, mistakes=()):
    """Notes an evaluation of 40 images of each class: every fourth image is taken for the next class."""
    labels = np.arange(40 * names) % names
    predicted = np.where(np.arange(40 * names) % 4 == 0, (labels + 1) % names, labels)
    answers = Answers(names)
    answers.update(labels, predicted, np.full(len(labels), 0.75))
    figures = {"num_images": len(labels), "top1": 0.75, "top5": 1.0, "eval_loss": 0.9, **answers.result()}
    config = Config().override({"data.eval_split": split})
    note_evaluation(folder, evaluation_of(config, figures, len(labels), step=1200, image_size=32), mistakes)


class Page(html.parser.HTMLParser):
    """Parses a page: checks that elements are closed in order, and collects its text and references."""

    VOID = frozenset(("meta", "link", "img", "br", "hr", "input"))

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.ids, self.references, self.text = [], [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.handle_startendtag(tag, attributes)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        assert len(attributes) == len(dict(attributes)), (tag, attributes)
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            elif name in ("href", "src", "srcset", "data", "action", "xlink:href"):
                self.references.append(value)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, (tag, self.getpos())

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data.strip())


def check_page(path):
    """Asserts that a page is valid HTML and self-contained; returns it parsed."""
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert text.startswith("<!DOCTYPE html>")
    assert not {"script", "link", "iframe", "object", "embed", "base"} & set(page.tags)
    assert len(page.ids) == len(set(page.ids))
    assert {"html", "head", "title", "body", "svg", "table", "h1"} <= set(page.tags)
    for reference in page.references:
        assert reference.startswith("data:image/jpeg;base64,") or reference[1:] in page.ids, reference[:80]
    assert {inner for inner in re.findall(r"url\(([^)]*)\)", text) if inner.strip("\"'#") not in page.ids} == set()
    assert "http://" not in text
    assert "https://" not in text
    assert "@import" not in text
    return page


def table_row(page, first, length):
    """Returns ``length`` texts of the page, from the first that equals ``first``."""
    words = [word for word in page.text if word]
    start = words.index(first)
    return words[start : start + length]


def test_the_page_is_sound_and_needs_nothing_else(tmp_path):
    path = write_report(make_folder(tmp_path / "run"), make_samples())
    page = check_page(path)
    assert path == tmp_path / "run" / "report.html"
    assert [file.name for file in path.parent.iterdir() if "report" in file.name] == ["report.html"]
    assert page.tags.count("svg") == 6
    assert page.tags.count("img") == 24
    assert NASTY not in path.read_text()
    assert page.text.count(NASTY) >= 12 + 1  # of the samples and the configuration
    assert page.text.count("✗ green") == 12
    assert "is " + NASTY in page.text
    assert "87.6\xa0%" in page.text


def test_the_page_tells_the_figures(tmp_path):
    page = check_page(write_report(make_folder(tmp_path / "run"), NO_SAMPLES))
    words = [word for word in page.text if word]
    assert table_row(page, "88.57%", 8) == [
        "88.57%", "best top-1, EMA", "80.00%", "last top-1, EMA", "1,200", "steps, finished", "0:02:00",
        "training time, h:mm:ss",
    ]  # fmt: skip
    assert table_row(page, "Best evaluation: step 1,100, epoch 11.0", 7)[4:] == ["top-1", "0.7857", "0.8857"]
    assert table_row(page, "Last evaluation: step 1,200, epoch 12.0", 7)[4:] == ["top-1", "0.7000", "0.8000"]
    headings = table_row(page, "RandAugment", 11)
    assert headings[-7:] == [
        "steps", "images/s", "compile, s", "waits for input", "peak memory, MiB", "last loss", "last score",
    ]  # fmt: skip
    start = words.index("last score")
    rows = [words[start + 1 + 13 * number : start + 14 + 13 * number] for number in range(3)]
    assert [row[7:11] for row in rows] == [
        ["100", "7.5", "input-bound, 25%", "400"], ["100", "7.5", "5%", "800"], ["100", "7.5", "5%", "1,200"],
    ]  # fmt: skip
    assert {tf.__version__, "There are none.", "OneDeviceStrategy"} <= set(words)


def test_the_page_of_a_run_that_has_not_begun_or_ended(tmp_path):
    folder = make_folder(tmp_path / "run", steps=450)
    page = check_page(write_report(folder, NO_SAMPLES))
    assert {"450 of 1,200", "steps, unfinished"} <= set(page.text)
    for name in ("metrics.jsonl", "provenance.json"):
        (folder / name).unlink()
    text = write_report(folder, NO_SAMPLES).read_text()
    assert {"0 of 1,200", "There is no evaluation yet.", "There are no metrics yet."} <= set(Page(text).text)
    with pytest.raises(RunFolderError, match="holds no run"):
        write_report(RunFolder(tmp_path), NO_SAMPLES)


def test_several_labels_and_a_run_without_average(tmp_path):
    folder = make_folder(tmp_path / "run", several=True, **{"train.loss_type": "sigmoid"})
    sample = Sample(np.zeros((8, 8, 3), np.uint8), ("green", NASTY), "green", 0.5)
    page = check_page(write_report(folder, Samples((sample,), "One.")))
    assert {"best mAP, EMA", "EMA gap, mAP", f"green, {NASTY}"} <= set(page.text)
    ranking = Ranking(3)
    ranking.update([[2, -1, 1], [1, 3, -2], [-1, -2, -3]], [[1, 0, 0], [1, 1, 0], [0, 1, 0]], [1, 1, 1])
    figures = {"num_images": 3, "top1": 1.0, "eval_loss": float("nan"), **ranking.result()}
    note_evaluation(folder, evaluation_of(folder.config(), figures, 3, step=1200, image_size=32))
    page = check_page(write_report(folder, NO_SAMPLES))
    assert table_row(page, "average precision", 7)[1:] == ["green", "2", "1.000", "0.500", "0.667", "0.833"]
    assert "Confusion" not in page.text
    rows = [{k: v for k, v in row.items() if "ema" not in k} for row in folder.metrics()]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = check_page(write_report(folder, NO_SAMPLES))
    assert "best mAP" in page.text
    assert page.tags.count("svg") == 5


def test_a_long_run_with_large_images_makes_a_small_page(tmp_path):
    folder = make_folder(tmp_path / "run", log_every=1)
    rows = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text(rows * 15)
    path = write_report(folder, make_samples(480))
    check_page(path)
    assert path.stat().st_size < 2_000_000


def test_samples_are_what_the_network_takes_them_for():
    names = ("dark", "middle", "bright")
    levels = np.array([40, 120, 200], np.uint8)
    images = np.repeat(levels, 10)[:, None, None, None] * np.ones((1, 40, 40, 3), np.uint8)
    source = ArraySource(images, np.repeat(np.arange(3), 10), names)
    tf.keras.utils.set_random_seed(0)
    model = build_model(TINY, num_classes=3)
    config = Config().override({"eval.isize": 32})
    drawn = draw_samples(model, source, config, note="These.")
    assert (len(drawn.samples), drawn.note) == (24, "These.")
    assert {name for sample in drawn.samples for name in sample.true} == set(names)
    expected = tf.nn.softmax(model(levels[:, None, None, None] * np.ones((1, 32, 32, 3), np.float32))).numpy()
    for sample in drawn.samples:
        label = names.index(sample.true[0])
        assert sample.image.shape == (32, 32, 3)
        assert (sample.image == levels[label]).all()
        assert sample.predicted == names[expected[label].argmax()]
        assert sample.probability == pytest.approx(expected[label].max(), abs=1e-4)
    config = config.override({"model.include_preprocessing": False, "model.normalization": "centered"})
    again = draw_samples(build_model(TINY, num_classes=3, include_preprocessing=False), source, config, note="")
    assert (again.samples[0].image == drawn.samples[0].image).all()


def test_samples_of_a_run_without_data_or_checkpoint(tmp_path, monkeypatch):
    run = make_run(tmp_path / "run")
    absent = samples_of_run(run, changes={"data.data_dir": str(tmp_path / "nowhere")})
    assert absent.samples == ()
    assert re.match("There are no samples. .*nowhere", absent.note)
    digits = samples_of_run(run, changes={"data.source": "digits"})
    assert "The data has other classes than the run: 0, 1, 2, 3, 4 ..." in digits.note
    for folder in ("best", "checkpoints"):
        shutil.rmtree(run / folder)
    source = ArraySource(np.zeros((6, 8, 8, 3), np.uint8), np.arange(6), RunFolder(run).class_names())
    monkeypatch.setattr(samples, "open_splits", lambda _: Splits(source, source))
    assert "has no checkpoint yet" in samples_of_run(run).note


def test_provenance_names_versions_and_devices(tmp_path):
    facts = describe_provenance(tf.distribute.MirroredStrategy(["/cpu:0"]))
    assert (facts["TensorFlow"], facts["strategy"], facts["replicas"]) == (tf.__version__, "MirroredStrategy", "1")
    assert "CPU" in facts["devices"]
    assert re.fullmatch(r"[0-9a-f]{12}( with changes)?", facts.get("git commit", "0" * 12))


def test_the_page_shows_each_split_that_was_evaluated(tmp_path):
    folder = make_folder(tmp_path / "run")
    wrong = make_samples(overlay=True, count=4).samples
    note(folder, "validation", mistakes=wrong[:2])
    note(folder, "test", mistakes=wrong)
    page = check_page(write_report(folder, NO_SAMPLES))
    words = [word for word in page.text if word]
    assert table_row(page, "75.0%", 2) == ["75.0%", "top-1 on test, 95 %: 66.6% to 81.9%"]
    assert words.index("Results") < words.index("Classes") < words.index("Confusion") < words.index("Curves")
    assert table_row(page, "test", 5) == ["test", "120", "1,200", "raw", "0.7500 (0.666 to 0.819)"]
    assert table_row(page, "validation", 4) == ["validation", "120", "1,200", "raw"]
    assert table_row(page, "green", 5) == ["green", "40", "0.750", "0.750", "0.750"]
    assert f"10 of 40 {NASTY} were called green." in words
    assert table_row(page, "Rows: true class. Columns: predicted class. A cell holds a number of images; its color is "
                     "their share of the true class.", 2)[1] == "Most confident mistakes"  # fmt: skip
    assert page.tags.count("img") == 2 * (4 + 2)
    assert page.tags.count("details") == 1
    (folder / "mistakes" / "test-01.jpg").write_bytes(b"")
    (folder / "mistakes" / "test-02-why.jpg").unlink()
    assert check_page(write_report(folder, NO_SAMPLES)).tags.count("img") == 2 * (4 + 2) - 3


def test_an_evaluation_takes_the_place_of_an_earlier_one_of_its_split(tmp_path):
    folder = make_folder(tmp_path / "run")
    wrong = make_samples(count=6).samples
    for number, split in enumerate(("train[:5%]", "train[5%:]", "train[:5%]", None)):
        note(folder, split, mistakes=wrong[number : number + 2])
    kept = read_evaluations(folder)
    assert [one.split for one in kept] == ["train[5%:]", "train[:5%]", None]
    names = [mistake.picture for one in kept for mistake in one.mistakes]
    assert sorted(names) == sorted(path.name for path in (folder / "mistakes").iterdir())
    assert len(set(names)) == 6


@pytest.mark.parametrize("damage", ["", "{", "[3]", '[{"split": null}]', "[" * 100_000])
def test_damaged_evaluations_do_not_prevent_the_report(tmp_path, damage, caplog):
    folder = make_folder(tmp_path / "run", steps=0)
    note(folder, "test")
    text = (folder / "evaluations.json").read_text()
    for content in (
        damage,
        text.replace('"num_hits":[', '"num_hits":[1,'),
        text.replace("[[0,1,", "[[0,7,"),
        text.replace("0.9", "Infinity"),
    ):
        (folder / "evaluations.json").write_text(content)
        assert read_evaluations(folder) == []
    assert "cannot be read" in caplog.text
    check = write_report(folder, NO_SAMPLES).read_text()
    assert "There is no evaluation yet." in check


def test_many_classes_have_a_matrix_of_those_that_are_confused(tmp_path):
    names = tuple(f"class {number}" for number in range(40))
    folder = make_folder(tmp_path / "run", steps=0)
    data = json.loads((folder / "data.json").read_text())
    (folder / "data.json").write_text(json.dumps({**data, "class_names": names}))
    note(folder, "test", names=40)
    page = Page(write_report(folder, NO_SAMPLES).read_text())
    assert any(word.startswith("The 20 classes that are confused most.") for word in page.text)


def test_only_settings_with_an_effect_are_listed():
    config = Config().override({"train.lr_sched": "cosine", "train.lr_decay_factor": 0.5, "data.augment": "none"})
    shown = {f"{section}.{name}" for section, rows in effective_settings(config).items() for name, *_ in rows}
    assert {"train.lr_sched", "train.lr_base", "data.augment", "data.hflip", "progressive.stages"} <= shown
    assert not any(name.startswith(("search.", "progressive.randaug", "progressive.cutmix")) for name in shown)
    assert not {"train.lr_decay_factor", "train.gclip", "data.tfds_name", "train.ft_init_ema", "eval.sizes"} & shown
    shown = effective_settings(Config().override({"data.hflip": False, "progressive.mixup_alpha.end": 0.5}))
    assert ("hflip", "False", True) in shown["data"]
    assert ("mixup_alpha.end", "0.5", True) in shown["progressive"]


@pytest.mark.skipif(not find_chromium(), reason="there is no Chromium on the PATH or in CHROMIUM_PATH")
def test_nothing_is_wider_than_the_window(tmp_path):
    """With long names, many classes, pictures and a wide table."""
    folder = make_folder(tmp_path / "run")
    names = [f"{'an_unusually_long_name_' * 4}{number}" for number in range(29)]
    data = json.loads((folder / "data.json").read_text())
    (folder / "data.json").write_text(json.dumps({**data, "class_names": names}))
    note(folder, "test", names=29, mistakes=make_samples(128, overlay=True).samples)
    page = write_report(folder, make_samples(128, overlay=True))
    check_page(page)
    assert {"Results", "Classes", "Confusion", "Most confident mistakes", "Samples", "Curves"} <= set(
        Page(page.read_text()).text
    )
    shown, complaints = widths_of(find_chromium(), page, tmp_path, windows=(400, 1400))
    assert complaints == []
    assert shown == {400: 400, 1400: 1400}


@pytest.mark.skipif(not find_chromium(), reason="there is no Chromium on the PATH or in CHROMIUM_PATH")
def test_a_browser_shows_the_page_without_complaints_or_network(tmp_path):
    chromium, screenshot = find_chromium(), tmp_path / "page.png"
    page = write_report(make_folder(tmp_path / "run"), make_samples())
    assert open_page(chromium, page, screenshot) == []
    greedy = tmp_path / "greedy.html"
    greedy.write_text(page.read_text().replace("</main>", '<img src="http://example.org/x.png" alt=""></main>'))
    (complaint,) = open_page(chromium, greedy, tmp_path / "greedy.png")
    assert "example.org" in complaint
    with PIL.Image.open(screenshot) as image:
        assert image.size == (1280, 2900)
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    colors = {tuple(color) for color in pixels[::7]}
    assert {(0x3B, 0x82, 0xF6), (0xD9, 0x2D, 0x20)} <= colors  # a curve, and what marks a mistake
