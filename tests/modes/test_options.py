import os

from effnetv2_keras.config import Config
from effnetv2_keras.modes.options import Options, flag_table
from effnetv2_keras.modes.predict import find_images
from effnetv2_keras.runs.run_folder import RunFolder


def test_a_tilde_in_a_path_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    flags = {name: flag for name, (_, flag) in flag_table().items() if flag.path}
    folders = {
        name for name, (_, flag) in flag_table().items() if name.endswith(("_dir", "_file")) or "PATH" in flag.help
    }
    assert folders | {"images", "hparam_str", "model_name"} == set(flags)
    for name, flag in flags.items():
        value = getattr(Options(**{name: ("~/a", "b~/c") if flag.repeated else "~/a"}), name)
        assert value == ((f"{tmp_path}/a", "b~/c") if flag.repeated else f"{tmp_path}/a")
    config = Config().override({"data.data_dir": "~/photos", "train.ft_init_ckpt": "~/run"})
    assert (config.data.data_dir, config.train.ft_init_ckpt) == (f"{tmp_path}/photos", f"{tmp_path}/run")
    assert RunFolder("~/run").path == tmp_path / "run"
    (tmp_path / "a.jpg").touch()
    assert find_images([os.path.join("~", "a.jpg")]) == [tmp_path / "a.jpg"]
