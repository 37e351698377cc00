"""The config that a package is proved at besides its own."""

from types import SimpleNamespace

import pytest
import transformers

from hf2khc.diagnostics import ConversionError
from hf2khc.driver import other_config


def tried(monkeypatch, proves):
    """The configs at which a model of two layers is proved, and what is said; `proves` says whether one holds."""
    config = transformers.LlamaConfig(num_hidden_layers=2)
    config.scales = [1.0, 2.0]
    configs = []

    def proved(directory, source, compiled, config, seed):
        configs.append((config.num_hidden_layers, config.scales))
        return other_config.OtherConfig(() if proves(config) else (f"not with {config.scales}",))

    monkeypatch.setattr(other_config, "_proved", proved)
    twin = SimpleNamespace(config=config, depth={"layers": "config.num_hidden_layers"})
    plan = SimpleNamespace(values={"config.num_hidden_layers": 2})
    compiled = SimpleNamespace(generalises=(), twin=twin, captured=SimpleNamespace(stacks={}), plan=plan)
    return configs, other_config.other_config(None, None, compiled).reasons


def test_a_list_with_an_entry_per_layer_grows_with_them(monkeypatch):
    configs, reasons = tried(monkeypatch, lambda config: len(config.scales) == config.num_hidden_layers)
    assert configs == [(3, [1.0, 2.0, 1.0])] and not reasons


def test_a_list_that_has_as_many_entries_by_chance_stays(monkeypatch):
    configs, reasons = tried(monkeypatch, lambda config: len(config.scales) == 2)
    assert configs == [(3, [1.0, 2.0, 1.0]), (3, [1.0, 2.0])] and not reasons


def test_what_holds_neither_way_is_reported_as_it_was_tried_first(monkeypatch):
    configs, reasons = tried(monkeypatch, lambda config: False)
    assert len(configs) == 2 and reasons == ("not with [1.0, 2.0, 1.0]",)


def test_a_config_whose_fields_do_not_fit_is_none():
    config = transformers.Speech2TextConfig(num_conv_layers=2, conv_kernel_sizes=[5, 5])
    other_config.check_config(config)
    config.conv_kernel_sizes = [5, 5, 5]
    with pytest.raises(ConversionError, match="takes no such Speech2TextConfig"):
        other_config._captured(None, None, config)


def test_inputs_that_transformers_does_not_make_there_are_a_reason(monkeypatch):
    config = transformers.GPT2Config(n_embd=8, n_head=2, n_layer=1, vocab_size=9)
    source = SimpleNamespace(model_class=transformers.GPT2Model, examples=())
    captured = SimpleNamespace(spec=(SimpleNamespace(name="input_ids"), SimpleNamespace(name="cu_seqlens")))
    with pytest.raises(ConversionError, match="does not make cu_seqlens there"):
        other_config._captured(captured, source, config)
