"""Questions about masks of zeros and ones that have one answer are no branches of a trace."""

import pytest
import torch
from custom_models import Custom, exported
from torch import nn

from hf2khc.capture.mask_values import MaskValues
from hf2khc.diagnostics import ConversionError


class Marked(Custom):
    """Doubles everything where the mask of any token has a certain number."""

    mark = 2

    def forward(self, input_ids, attention_mask=None):
        x = self.embed(input_ids) + (attention_mask * input_ids.shape[1])[..., None]
        marks = nn.functional.pad(attention_mask, (0, 3)).clamp(min=0) == self.mark
        added = torch.where(attention_mask[:, None, :].to(torch.bool), torch.zeros(()), -1.0)
        added[:, 0][attention_mask == self.mark] = 5.0
        if marks.flatten().any().item():
            x = 2 * x
        return x + added.sum(-1)[..., None]


class Padded(Marked):
    """The same for the number of padding, which any mask may have."""

    mark = 0


def test_a_mark_that_no_mask_has_is_asked_for_in_vain():
    model, found = exported(Marked)
    assert set(found.symbols.values()) == {"batch", "seq"}
    inputs = {"input_ids": torch.randint(0, 40, (3, 9)), "attention_mask": torch.randint(0, 2, (3, 9))}
    with torch.no_grad():
        torch.testing.assert_close(found.program.module()(**inputs), model(**inputs))


def test_a_question_with_two_answers_stays_a_branch():
    with pytest.raises(ConversionError, match="does not take Padded"):
        exported(Padded)


def test_what_can_follow_from_a_mask():
    mask, unknown = torch.zeros(2, 5, dtype=torch.int64), torch.zeros(2, 5, dtype=torch.bool)
    with MaskValues([mask]) as known:

        def values(tensor):
            entries = known._of(tensor)
            return entries and sorted(set(entries.values.tolist()))

        scores = (1.0 - mask[:, None].float()) * -1e4
        assert values(scores) == [-1e4, 0]
        assert (scores > 0).any().item() is False and (scores <= 0).all().item() is True
        assert values((mask == 1) & unknown) == [False, True] and values((mask == 2) & unknown) == [False]
        # Of one entry it is known together, of two entries not.
        inverted = 1.0 - mask[:, None].float()
        assert values(inverted.masked_fill(inverted.bool(), -7.0) * inverted) == [-7, 0]
        assert values(inverted.masked_fill(inverted[:1].bool(), -7.0) * inverted) == [-7, 0, 1]
        assert torch.where(mask == 0)[0].shape == (10,)
        assert values(mask + torch.zeros(2, 5)) is None and values(mask.sum(-1)) is None
        mask[0] = 7
        assert values(scores) is None and values(mask) is None
