"""What the agent can be told, and what it cannot."""

import msgspec
import pytest

from hami.agent.settings import Settings
from hami.cli.options import field_docs
from hami.model.errors import Malformed


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("node_name", " "),
        ("scan_interval", 0.0),
        ("kubelet_poll", -1.0),
        ("register_interval", float("nan")),
        ("allocate_timeout", float("inf")),
        ("event_qps", 0.0),
        ("kube_qps", -1.0),
        ("niceness", 20),
        ("log_level", "loud"),
        ("metrics_bind_address", "9394"),
        ("hook_path", "usr/local"),
        ("ledger_dir", "run/hami"),
        ("ledger_dir", "/"),
    ],
)
def test_a_setting_that_cannot_be_is_named_as_on_the_command_line(option, value):
    """A pause of nothing would keep a core busy, one of NaN for ever."""
    with pytest.raises(Malformed, match=f"^--{option.replace('_', '-')}: "):
        Settings(**{"node_name": "n", option: value})


def test_each_option_of_the_agent_is_explained():
    docs = field_docs(Settings)
    assert {field.name for field in msgspec.structs.fields(Settings)} == docs.keys()
    assert not [name for name, text in docs.items() if "None" in text]
