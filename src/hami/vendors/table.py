"""The vendors we know, one line each. Adding one is its file and a line here."""

from hami.config.schema import DeviceConfig
from hami.model.vendor import Vendor
from hami.vendors.nvidia import Nvidia


def load(config: DeviceConfig) -> tuple[Vendor, ...]:
    """Every vendor under `config`, in the order in which their words count."""
    return (Nvidia(config.nvidia),)
