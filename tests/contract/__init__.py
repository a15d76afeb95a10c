"""One suite of what an OCI runtime's command line does, over runc, crun and ours: the expectations are theirs."""

import pytest

pytest.register_assert_rewrite("tests.contract.box", "tests.contract.terminal")
