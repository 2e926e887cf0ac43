import subprocess
import sys

import pytest

import dppmask


@pytest.mark.parametrize("name", dppmask.__all__)
def test_every_promised_name_is_there(name):
    assert getattr(dppmask, name) is not None
    assert name in dir(dppmask)


def test_the_import_itself_loads_no_torch():
    code = "import sys, dppmask; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'pretrian'"):
        _ = dppmask.pretrian


def test_the_three_lists_of_names_agree():
    assert {*dppmask._MODULES, "__version__"} == set(dppmask.__all__)
