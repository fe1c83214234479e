"""The metric by which evaluations are compared, and which ``eval.best_metric`` chooses."""

import pytest

from effnetv2_keras.config import Config
from effnetv2_keras.errors import ConfigError
from effnetv2_keras.reporting.primary_metric import best_of, check_best_metric, ema_gap, judged
from effnetv2_keras.reporting.tables import describe_evaluation


def test_ema_gap_is_of_the_primary_metric():
    assert ema_gap({"top1": 0.5, "top1_ema": 0.75}) == {"ema_gap": 0.25}
    assert ema_gap({"top1": 0.5, "top1_ema": 0.75, "map": 0.5, "map_ema": 0.25}) == {"ema_gap": -0.25}
    assert ema_gap({"top1": 0.5}) == {}
    row = {"top1": 0.5, "top1_ema": 0.75, "ece": 0.125, "ece_ema": 0.25}
    assert ema_gap(row, "ece") == {"ema_gap": 0.125}


def test_the_chosen_metric_decides():
    row = {"top1": 0.5, "top1_ema": 0.75, "macro_f1": 0.25, "macro_f1_ema": 0.5, "eval_loss": 2.0, "eval_loss_ema": 1.5}
    assert judged(row) == {"value": 0.75, "metric": "top1_ema", "smaller_is_better": False}
    assert judged(row, "macro_f1") == {"value": 0.5, "metric": "macro_f1_ema", "smaller_is_better": False}
    assert judged(row, "loss") == {"value": 1.5, "metric": "eval_loss_ema", "smaller_is_better": True}
    assert judged({"top1": 0.5}, "macro_f1")["metric"] == "top1"  # the log of an earlier version
    assert best_of([{"ece": 0.3}, {"ece": 0.1}, {"ece": 0.2}], "ece") == {"ece": 0.1}


def test_a_metric_that_no_evaluation_gives_is_refused():
    config = Config().override({"eval.best_metric": "ece"})
    check_best_metric(config, several=False)
    with pytest.raises(ConfigError, match="best_metric=ece, .*several labels each. Use one of top1, top5, macro_f1, l"):
        check_best_metric(config, several=True)
    with pytest.raises(ConfigError, match="best_metric=map, .*one label each. Use one of top1, .*ece, loss, or None"):
        check_best_metric(Config().override({"eval.best_metric": "map"}), several=False)
    with pytest.raises(ConfigError, match="best_metric='f1': .*'top1', 'top5', 'macro_f1', 'balanced_accuracy', 'ece'"):
        Config().override({"eval.best_metric": "f1"})


def test_the_chosen_metric_is_told():
    row = {"num_images": 8, "top1": 0.5, "top5": 1.0, "ece": 0.25}
    assert describe_evaluation(row, 9, chosen="ece") == "evaluated 8 of 9 images: top-1 0.5000 top-5 1.0000 ECE 0.2500"
