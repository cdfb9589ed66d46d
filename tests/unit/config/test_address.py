"""Where a program listens."""

import pytest

from hami.config.address import address
from hami.model.errors import Malformed


def test_host_and_port_are_parted_at_the_last_colon_and_no_host_means_all() -> None:
    assert address("--bind", "127.0.0.1:80") == ("127.0.0.1", 80)
    assert address("--bind", ":9395") == ("0.0.0.0", 9395)
    assert address("--bind", "[::1]:443") == ("::1", 443)


@pytest.mark.parametrize("text", ["9394", "host:", "host:x", ":65536", ":99999", ":-1", ":²", ""])
def test_an_address_that_is_none_is_named_with_its_option(text: str) -> None:
    with pytest.raises(Malformed, match=r"--bind: .*a port from 0 to 65535"):
        address("--bind", text)
