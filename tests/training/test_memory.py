import gc

import numpy as np
import psutil
import pytest

from effnetv2_keras.data.pipeline import InputPlan, train_input
from effnetv2_keras.data.unreadable import UnreadableImages
from effnetv2_keras.distribution.strategy import make_strategy
from effnetv2_keras.training.state import create_state
from effnetv2_keras.training.steps import TrainStep
from tests.data.test_pipeline import array_source
from tests.short_runs import tiny_config
from tests.tiny import SMALL


@pytest.mark.slow
def test_stage_switches_leave_memory_flat():
    """Twenty switches, after a few that fill TensorFlow's own pools, as the loop does them."""
    config = tiny_config("progressive.stages=25,train.epochs=25")
    strategy = make_strategy("cpu")
    source = array_source(24)
    state = create_state(config.with_network(SMALL), strategy, num_classes=3, steps_per_epoch=3, total_steps=75)
    plan = InputPlan(config.data, 8, None, UnreadableImages("error"))
    memory = []
    for stage in config.progressive.plan(75):
        step = TrainStep(state, strategy, config=config, stage=stage)
        input_fn = train_input(source, plan, stage=stage, seed=0, first_step=stage.first_step)
        for batch in strategy.distribute_datasets_from_function(input_fn):
            step(batch)
        gc.collect()
        memory.append(psutil.Process().memory_info().rss / 2**20)
    assert state.finished_steps == 75
    settled = np.median(memory[4:7])
    assert np.median(memory[-3:]) < 1.05 * settled, [round(value) for value in memory]
