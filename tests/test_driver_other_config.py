"""The config that a package is proved at besides its own."""

from types import SimpleNamespace

import pytest
import transformers

from hf2khc.diagnostics import ConversionError, fail
from hf2khc.driver import other_config


def deepest(monkeypatch, builds):
    """The other config of a model of two layers, of which `builds` says whether it is one."""
    config = transformers.LlamaConfig(num_hidden_layers=2)
    config.scales = [1.0, 2.0]

    def captured(captured, source, config):
        if not builds(config):
            raise fail("cannot-build", "the model does not build from its config")
        return captured

    monkeypatch.setattr(other_config, "_captured", captured)
    twin = SimpleNamespace(config=config, depth={"layers": "config.num_hidden_layers"})
    plan = SimpleNamespace(values={"config.num_hidden_layers": 2})
    compiled = SimpleNamespace(twin=twin, captured=SimpleNamespace(stacks={}), plan=plan)
    return other_config._deepest(compiled, None)[0]


def test_a_list_with_an_entry_per_layer_grows_with_them(monkeypatch):
    found = deepest(monkeypatch, lambda config: len(config.scales) == config.num_hidden_layers)
    assert found.num_hidden_layers == 3 and found.scales == [1.0, 2.0, 1.0]


def test_a_list_that_has_as_many_entries_by_chance_stays(monkeypatch):
    found = deepest(monkeypatch, lambda config: len(config.scales) == 2)
    assert found.num_hidden_layers == 3 and found.scales == [1.0, 2.0]


def test_a_config_whose_fields_do_not_fit_is_none():
    config = transformers.Speech2TextConfig(num_conv_layers=2, conv_kernel_sizes=[5, 5])
    other_config.check_config(config)
    config.conv_kernel_sizes = [5, 5, 5]
    with pytest.raises(ConversionError, match="takes no such Speech2TextConfig"):
        other_config._captured(None, None, config)


def test_what_builds_neither_way_is_reported(monkeypatch):
    with pytest.raises(ConversionError, match="does not build"):
        deepest(monkeypatch, lambda config: False)
