"""`hf2khc verify`: what is written keeps the contract, and each check sees what it is there for."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("keras_hub")

# Per check: what is changed in which file of a package, every occurrence of it.
BREAKS = [
    ("get_config round trip", "bert_backbone.py", '"num_heads": self.num_heads', '"num_heads": 2 * self.num_heads'),
    ("get_config round trip", "bert_backbone.py", "        self.num_segments = num_segments\n", ""),
    ("save_to_preset, from_preset", "bert_backbone.py", '"num_layers": self.num_layers', '"num_layers": 1'),
    ("the package's own preset", "bert_backbone.py", '"dropout": self.dropout', '"dropout": 0.3'),
    (".keras round trip", "bert_backbone.py", '": self.layer_norm_epsilon', '": 0.1'),
    (".weights.h5 round trip", "bert_layer.py", "keras.layers.LayerNormalization(", "Forgetful("),
    ("variable lengths", "bert_attention.py", "x = ops.softmax(x)", "x = ops.softmax(x, axis=(0, -1))"),
    ("variable lengths", "bert_layer.py", "return hidden_states_shape", "return (*hidden_states_shape[:2], 3)"),
    ("mixed_bfloat16", "bert_attention.py", "dtype=self.dtype_policy", 'dtype="float32"'),
    ("mixed_bfloat16", "bert_attention.py", "self.layer_norm(x + hidden_states)", 'ops.cast(x, "float32")'),
    ("dropout", "bert_attention.py", "rate=self.attention_dropout", "rate=0.25"),
    ("dropout", "bert_attention.py", "_layer(x, training=training)", "_layer(x, training=False)"),
    ("enable_lora", "bert_attention.py", 'name="query"', 'name="q_proj"'),
    ("enable_lora", "bert_attention.py", 'name="value"', 'name="key_value"'),
    ("quantize int8", "bert_layer.py", "keras.layers.Dense(", "Own("),
    ("predict and fit, compiled", "bert_backbone.py", "ops.tanh(pooled_output)", "ops.log(pooled_output * 0)"),
]  # fmt: skip
# What mutations use, put at the end of the file.
CLASSES = """

class Forgetful(keras.layers.LayerNormalization):
    def save_own_variables(self, store):
        pass

    def load_own_variables(self, store):
        pass


class Own(keras.layers.Dense):
    pass
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    from float64_reference import noisy_model
    from tiny_models import MODELS

    import hf2khc

    model = noisy_model(*MODELS["bert"])
    model.config.name_or_path = "bert"
    directory = tmp_path_factory.mktemp("contract") / "package"
    hf2khc.convert(model, directory, check=False)
    yield directory
    forget()


def forget() -> None:
    """Other packages of this name may be imported by other tests, and changed ones by these."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "bert"]:
        del sys.modules[name]


def verdict(directory: Path, check: str):
    """The finding of one check, on the package as it stands in the folder now."""
    from hf2khc.check.contract_run import CHECKS, run_check
    from hf2khc.check.contract_subject import subject_of

    forget()
    return run_check(check, CHECKS[check], subject_of(directory))


@pytest.mark.parametrize("check", list(dict.fromkeys(check for check, *_ in BREAKS)))
def test_what_is_written_keeps_the_contract(package, check):
    found = verdict(package, check)
    assert found.verdict == "holds", (found.detail, found.faults)


@pytest.mark.parametrize(("check", "file", "before", "after"), BREAKS)
def test_each_check_sees_a_mutation(package, tmp_path, check, file, before, after):
    directory = tmp_path / "package"
    shutil.copytree(package, directory)
    path = directory / "bert" / file
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after) + CLASSES, encoding="utf-8")
    found = verdict(directory, check)
    assert found.verdict == "fails", found


def test_a_row_of_every_result_lies_on_its_axis_of_the_batch():
    import numpy as np

    from hf2khc.check.contract_subject import Subject

    results = {"hidden": (2, "batch", 4), "scores": ("batch", "batch"), "tokens": ("batch", 4)}
    subject = Subject(Path(), sys, None, {}, {}, {}, results, True, "")
    vars(subject)["model"] = SimpleNamespace(output=dict.fromkeys(results))
    arrays = [np.arange(24).reshape(2, 3, 4), np.ones((3, 3)), np.arange(12).reshape(3, 4)]
    hidden, scores, tokens = subject.rows(arrays, 1)
    assert np.array_equal(hidden, arrays[0][:, 1:2]) and scores is None and np.array_equal(tokens, arrays[2][1:2])


@pytest.mark.parametrize("marked", [1, 0])
def test_a_mask_may_mark_what_is_left_out(monkeypatch, marked):
    import numpy as np

    from hf2khc.check import contract_subject

    def kept(model, inputs):
        return [np.where(inputs["audio_mask"] == marked, inputs["audio"], 0)]

    template = {"audio": np.ones((2, 6), "float32"), "audio_mask": np.ones((2, 6), "bool")}
    axes = dict.fromkeys(template, ("batch", "frames"))
    subject = contract_subject.Subject(Path(), sys, None, {}, template, axes, {}, True, "")
    vars(subject).update(shapes=dict.fromkeys(template, (None, None)), model=None)
    monkeypatch.setattr(contract_subject, "outputs", kept)
    mask = subject.inputs(3)["audio_mask"]
    assert mask.dtype == bool and (mask[:2] == marked).all()
    assert (mask[2, :-1] == marked).all() and mask[2, -1] != marked


def test_integers_that_the_test_chose_stay_and_no_length_is_below_the_smallest():
    import numpy as np

    from hf2khc.check.contract_subject import Subject

    places = np.array([[0, 1, 1, 0]] * 2, "int32")
    template = {
        "token_ids": np.ones((2, 5), "int32"),
        "image_mask": places,
        "observed_mask": np.ones((2, 5), "float32"),
    }
    axes = {"token_ids": ("batch", "seq"), "image_mask": ("batch", 4), "observed_mask": ("batch", "seq")}
    subject = Subject(Path(), sys, None, {}, template, axes, {}, True, "", {"seq": 8})
    vars(subject).update(shapes={n: tuple(None if isinstance(s, str) else s for s in a) for n, a in axes.items()})
    vars(subject).update(unmasked=1)
    found = subject.inputs(3, 1)
    assert np.array_equal(found["image_mask"], places[[0, 0, 0]]), "places of images have nothing to do with padding"
    assert found["token_ids"].shape == (3, 8)
    assert (found["observed_mask"][:, :-1] == 1).all() and found["observed_mask"][2, -1] == 0


def test_a_policy_is_one_of_layers():
    import keras

    from hf2khc.check.contract_precision import _is_of_layers

    x = keras.Input((4,))
    outputs = [keras.ops.abs(x) + 1, keras.ops.exp(keras.layers.Dense(2)(keras.ops.abs(x)))]
    assert [_is_of_layers(output) for output in outputs] == [False, True]


def test_inputs_without_a_batch_keep_their_sizes_and_are_never_cut():
    import numpy as np

    from hf2khc.check.contract_subject import Subject

    template = {"patches": np.ones((48, 6), "float32"), "grid": np.ones((2, 3), "int32")}
    shapes = {"patches": (None, 6), "grid": (None, 3)}
    flat = Subject(Path(), sys, None, {}, template, {"patches": (48, 6), "grid": (2, 3)}, {"": (12, 6)}, True, "")
    rows = Subject(Path(), sys, None, {}, template, {"patches": ("batch", 6), "grid": ("batch", 3)}, {}, True, "")
    for subject in (flat, rows):
        vars(subject)["shapes"] = shapes
    assert {name: array.shape for name, array in flat.inputs(5).items()} == {"patches": (48, 6), "grid": (2, 3)}
    assert {name: array.shape for name, array in rows.inputs(5).items()} == {"patches": (5, 6), "grid": (5, 3)}
    assert (flat.takes_rows, flat.is_batched) == (False, False) and rows.takes_rows and rows.is_batched
