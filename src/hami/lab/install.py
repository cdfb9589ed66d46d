"""Installs the product on a lab as an administrator would: the printed objects, and users with the printed rights.

`Product` runs the scheduler's programs; this gives them a namespace, accounts, webhook and policies.
"""

from base64 import b64encode
from collections.abc import Sequence

from hami.config.schema import DeviceConfig
from hami.lab.errors import CommandFailed
from hami.lab.lab import Identity, Lab
from hami.lab.product import Product, Replica
from hami.scheduler import manifests
from hami.scheduler.manifests import Site
from hami.vendors import table

ENFORCED_SECONDS = 30.0
FORGED = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "forged", "annotations": {"hami.io/vgpu-node": "nowhere"}},
    "spec": {"containers": [{"name": "main", "image": "none"}]},
}


def site_of(
    product: Product, replica: Replica, devices: DeviceConfig | None = None, record_writers: Sequence[str] = ()
) -> Site:
    """The installation whose webhook is that replica."""
    return Site(
        vendors=table.load(devices or DeviceConfig()),
        webhook_url=f"{replica.url}/webhook",
        record_writers=record_writers,
        ca_bundle=b64encode(product.serving.authority.read_bytes()).decode(),
    )


def install(lab: Lab, site: Site) -> None:
    """1. namespace, accounts and rights, 2. webhook and policies, 3. wait until the API server enforces them."""
    lab.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": site.namespace}}, *manifests.rbac(site)])
    lab.apply(manifests.admission(site))
    lab.wait_for("the admission policies enforced", lambda: enforced(lab), ENFORCED_SECONDS)


def enforced(lab: Lab) -> bool:
    """Whether a forged record is refused; the API server takes a moment to see new policies."""
    try:
        lab.kubectl("create", "--dry-run=server", "-f", "-", stdin=manifests.to_yaml([FORGED]))
    except CommandFailed:
        return True
    return False


def account(lab: Lab, site: Site, user: str) -> Identity:
    """A service account of the site, as a user with a certificate instead of a token."""
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{site.namespace}")
    return lab.identity(user, groups)
