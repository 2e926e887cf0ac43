"""The page "your own mask in 20 lines" runs as printed, and its mask keeps the contract."""

import re
import sys
from pathlib import Path
from types import ModuleType

import torch

from dppmask.masks import MaskContext, RandomMask
from dppmask.rng import fold_in

PAGE = Path(__file__).parents[2] / "docs" / "your-own-mask.md"
THE_MASK, IN_USE, ITS_TEST = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)

my_masks = sys.modules["my_masks"] = ModuleType("my_masks")
exec(THE_MASK, vars(my_masks))
exec(ITS_TEST, globals())  # defines TestContrastMask, which pytest then collects


def test_it_is_20_lines():
    body = THE_MASK[THE_MASK.index("class ") :]
    assert len([line for line in body.splitlines() if line.strip()]) <= 20


def test_the_example_prints_what_it_says(capsys):
    exec(IN_USE, {})
    assert capsys.readouterr().out.strip() == IN_USE.rsplit("# ", 1)[1].strip()


def test_it_shows_what_has_contrast():
    images = torch.randn(256, 1, 8, 8, generator=fold_in(0, 1))
    images[:, :, :4] *= 0.1
    context = MaskContext(images, grid=(4, 4))
    masks = {
        strategy: strategy(context, 8, generator=fold_in(0, 2)).masked.float().mean(0)
        for strategy in (my_masks.ContrastMask(), my_masks.ContrastMask(sharpness=0.0), RandomMask())
    }
    contrast, blunt, uniform = masks.values()
    assert contrast[:8].min() > 0.7
    assert contrast[8:].max() < 0.3
    assert torch.equal(blunt, uniform)
