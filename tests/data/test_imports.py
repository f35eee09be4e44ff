from __future__ import annotations

import subprocess
import sys


def test_data_and_its_configuration_need_no_torch():
    code = (
        "import sys; from hssl_search.data import ViewsConfig, load_data, pack; ViewsConfig(); "
        "print([name for name in ('torch', 'sklearn', 'pandas', 'ray') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
